"""`llamaforge worker install` on real machines: options, asking again, edits, the way back."""

from __future__ import annotations

import json
import re

from lab_service import LISTING, properties

from lab import Node

UNIT = "llamaforge-worker.service"
DROPIN = f"/etc/systemd/system/{UNIT}.d/50-install.conf"
SETTINGS = "/etc/llamaforge/worker.conf"


def install(node: Node, *options: str, **how: str) -> str:
    return node.run("llamaforge", "worker", "install", *options, timeout=120, **how).stdout


def test_from_nothing_to_active_and_back_to_nothing(installed_node: Node) -> None:
    node = installed_node
    before = node.shell(LISTING).stdout
    shown = install(node, "--dry-run", "--coordinator", "10.0.0.9:29400")
    assert DROPIN.rpartition("/")[0] in shown or SETTINGS in shown
    assert node.shell(LISTING).stdout == before  # a dry run changes nothing
    install(node, "--coordinator", "10.0.0.9:29400", "--token-file", "-", input="geheim123\n")
    assert properties(node, "ActiveState", "UnitFileState") == {
        "ActiveState": "active",
        "UnitFileState": "enabled",
    }
    assert node.shell("stat -c '%a %U' /etc/llamaforge/token").stdout.strip() == "600 root"
    hidden = node.run(
        "runuser", "-u", "llamaforge", "--", "cat", "/etc/llamaforge/token", check=False
    )
    assert hidden.returncode != 0
    pid = properties(node, "MainPID")["MainPID"]
    assert "geheim" not in node.shell(f"tr '\\0' '\\n' </proc/{pid}/environ; ps axww").stdout
    assert (
        "geheim" not in node.shell("journalctl --no-pager; systemctl show llamaforge-worker").stdout
    )

    again = install(node)
    assert "nothing has changed" in again
    assert properties(node, "MainPID")["MainPID"] == pid

    install(node, "--uninstall")
    stays = node.shell(LISTING).stdout
    assert "/var/lib/llamaforge " in stays
    assert "/etc/llamaforge/token" in stays
    assert UNIT not in stays
    install(node)
    assert properties(node, "ActiveState")["ActiveState"] == "active"
    install(node, "--uninstall", "--purge")
    assert node.shell(LISTING).stdout == before


def test_an_edited_file_is_never_touched(installed_node: Node) -> None:
    node = installed_node
    install(node, "--memory", "3G", "--ranks", "2", "--no-start")
    mine = node.read(DROPIN) + "# mine\n"
    node.write(DROPIN, mine)
    said = install(node, "--memory", "4G", "--no-start")
    assert node.read(DROPIN) == mine
    assert "MemoryMax=4G" in node.read(DROPIN + ".new")
    assert DROPIN + ".new" in said
    assert install(node, "--no-start").count(DROPIN) == 1  # kept; nothing new to say
    assert "MemoryMax=4G" in node.read(DROPIN + ".new")
    node.write(DROPIN, node.read(DROPIN + ".new"))  # merged by hand
    install(node, "--no-start")
    assert node.shell(f"test ! -e {DROPIN}.new").returncode == 0
    assert "LLAMAFORGE_RANKS=2" in node.read(SETTINGS)
    install(node, "--uninstall", "--purge")


def test_every_option_reaches_the_process(installed_node: Node) -> None:
    node = installed_node
    node.shell("useradd --create-home bob && install -d -o bob /home/bob/data /mnt/hub")
    install(
        node,
        *("--user", "bob", "--path", "/home/bob/data", "--workdir", "/home/bob/data"),
        *("--hf-home", "/mnt/hub", "--memory", "2G", "--cpu", "150%", "--nice", "5"),
        *("--cpu-policy", "batch", "--cpus", "0", "--numa-node", "0", "--env", 'NOTE=a "b" $c'),
        *("--master-addr", "192.0.2.7", "--master-port", "29555", "--node-rank", "2"),
        *("--world-size", "4", "--nproc-per-node", "3", "--name", "bobs-box"),
    )
    seen = properties(
        node,
        *("ActiveState", "User", "MemoryMax", "CPUQuotaPerSecUSec", "Nice", "CPUSchedulingPolicy"),
        *("CPUAffinity", "NUMAMask", "NUMAPolicy", "WorkingDirectory", "StatusText", "MainPID"),
    )
    pid = seen.pop("MainPID")
    assert "192.0.2.7:29555" in seen.pop("StatusText")
    assert seen == {
        "ActiveState": "active",
        "User": "bob",
        "MemoryMax": str(2 << 30),
        "CPUQuotaPerSecUSec": "1.500000s",
        "Nice": "5",
        "CPUSchedulingPolicy": "3",
        "CPUAffinity": "0",
        "NUMAMask": "0",
        "NUMAPolicy": "bind",
        "WorkingDirectory": "/home/bob/data",
    }
    status = node.read(f"/proc/{pid}/status")
    assert re.search(r"^Cpus_allowed_list:\s+0$", status, re.MULTILINE)
    ps = node.run("ps", "-o", "user=,nice=,class=", "-p", pid).stdout.split()
    assert ps == ["bob", "5", "B"]
    environ = node.shell(f"tr '\\0' '\\n' </proc/{pid}/environ").stdout
    assert 'NOTE=a "b" $c' in environ.splitlines()
    assert "NOTE" not in properties(node, "Environment")["Environment"]
    inside = f"nsenter -t {pid} -m -- runuser -u bob -- "
    node.shell(f"{inside} touch /home/bob/data/x /mnt/hub/x")
    assert node.shell(f"{inside} ls /home").stdout.split() == ["bob"]
    assert node.shell(f"{inside} touch /home/bob/other", check=False).returncode != 0
    security = node.run("systemd-analyze", "security", "--no-pager", UNIT).stdout
    assert float(re.search(r"exposure level for \S+: ([0-9.]+)", security)[1]) <= 2.0  # type: ignore[index]


def test_mistakes_change_nothing(installed_node: Node) -> None:
    node = installed_node
    before = node.shell(LISTING).stdout
    for options, named in (
        (("--memory", "lots"), "--memory"),
        (("--user", "nobody-here"), "nobody-here"),
        (("--node-rank", "5", "--master-addr", "x", "--world-size", "2"), "NODE_RANK"),
        (("--nise", "3"), "--nice"),
        (("--purge",), "--uninstall"),
    ):
        done = node.run("llamaforge", "worker", "install", *options, check=False)
        assert done.returncode == 2
        assert named in done.stderr
    refused = node.run("llamaforge", "worker", "install", user="nobody", check=False)
    assert refused.returncode == 2
    assert "sudo llamaforge worker install" in refused.stderr
    assert node.shell(LISTING).stdout == before


def test_after_an_error_all_is_as_it_was(installed_node: Node) -> None:
    node = installed_node
    before = node.shell(LISTING).stdout
    node.shell("mv /usr/bin/systemd-tmpfiles /usr/bin/systemd-tmpfiles.away")
    done = node.run("llamaforge", "worker", "install", check=False)
    node.shell("mv /usr/bin/systemd-tmpfiles.away /usr/bin/systemd-tmpfiles")
    assert done.returncode == 1
    assert "systemd-tmpfiles" in done.stderr
    assert node.shell(LISTING).stdout == before


def test_json_says_the_same(installed_node: Node) -> None:
    node = installed_node
    plan = json.loads(install(node, "--dry-run", "--json", "--token-file", "-", input="geheim\n"))
    by_path = {file["path"]: file for file in plan["files"]}
    assert by_path["/etc/llamaforge/token"]["mode"] == "0600"
    assert by_path["/etc/llamaforge/token"]["content"] is None
    assert ["systemctl", "daemon-reload"] in plan["commands"]
