"""`llamaforge coordinator install` on a real machine, alone and beside a worker: unit, account,
settings, the way back."""

from __future__ import annotations

import re

from lab_fleet import COORDINATOR, STATE
from lab_service import LISTING, UNIT, main_pid, properties, until_waiting

from lab import Node

SETTINGS = "/etc/llamaforge/coordinator.conf"


def install(node: Node, *options: str) -> str:
    done = node.run("llamaforge", "coordinator", "install", *options, timeout=120)
    return done.stdout


def pid(node: Node) -> str:
    return properties(node, "MainPID", unit=COORDINATOR)["MainPID"]


def last_line(node: Node) -> str:
    """What the coordinator said last."""
    return node.run("journalctl", "-u", COORDINATOR, "-n", "5", "-o", "cat").stdout


def test_from_nothing_to_active_and_back_to_nothing(installed_node: Node) -> None:
    node = installed_node
    before = node.shell(LISTING).stdout
    assert SETTINGS in install(node, "--dry-run", "--host", node.address)
    assert node.shell(LISTING).stdout == before  # a dry run changes nothing
    assert "let a machine join" in install(node)
    now = properties(
        node, "ActiveState", "UnitFileState", "User", "Group", "StatusText", unit=COORDINATOR
    )
    assert now == {
        "ActiveState": "active",
        "UnitFileState": "enabled",
        "User": "llamaforge-coordinator",
        "Group": "llamaforge",
        "StatusText": "0 nodes connected; no job",
    }
    listening = node.run("ss", "-tlnH", "sport", "=", ":29400").stdout
    assert "*:29400" in listening, "IPv4 and IPv6"
    first = pid(node)
    assert "nothing has changed" in install(node)
    assert pid(node) == first
    install(node, "--node-grace", "20")
    assert "LLAMAFORGE_NODE_GRACE=20" in node.read(SETTINGS)
    install(node, "--uninstall")
    assert node.run("ls", f"{STATE}/authority").returncode == 0  # the fleet can be taken up again
    install(node)
    assert "LLAMAFORGE_NODE_GRACE=20" in node.read(SETTINGS)
    install(node, "--uninstall", "--purge")
    assert node.shell(LISTING).stdout == before


def test_it_is_closed_in_and_verified(installed_node: Node) -> None:
    node = installed_node
    install(node)
    said = node.run("systemd-analyze", "security", "--no-pager", COORDINATOR).stdout
    found = re.search(r"exposure level for \S+: ([0-9.]+)", said)
    assert found
    assert float(found[1]) <= 1.5
    verified = node.run("systemd-analyze", "verify", f"{COORDINATOR}.service")
    assert verified.stdout + verified.stderr == ""
    status = node.read(f"/proc/{pid(node)}/status")
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)


def test_settings_are_read_again_and_wrong_ones_end_it_for_good(installed_node: Node) -> None:
    node = installed_node
    install(node)
    first = pid(node)
    node.shell(f"printf 'LLAMAFORGE_NODE_GRACE=9\nLLAMAFORGE_PORT=29444\n' >> {SETTINGS}")
    node.run("systemctl", "reload", COORDINATOR)
    node.wait_for(
        lambda: (
            "changed: LLAMAFORGE_NODE_GRACE; only after a restart: LLAMAFORGE_PORT"
            in last_line(node)
        ),
        what="it tells what has changed",
        unit=COORDINATOR,
    )
    node.shell(f"echo LLAMAFORGE_PROT=1 >> {SETTINGS}")
    node.run("systemctl", "reload", COORDINATOR)
    node.wait_for(
        lambda: "did you mean LLAMAFORGE_PORT" in last_line(node),
        what="it names the mistake",
        unit=COORDINATOR,
    )
    assert pid(node) == first
    node.run("systemctl", "restart", COORDINATOR, check=False)
    now = properties(node, "ActiveState", "ExecMainStatus", unit=COORDINATOR)
    assert now == {"ActiveState": "failed", "ExecMainStatus": "78"}
    found = node.run("llamaforge", "doctor", "--only", "LF206", check=False).stdout
    assert "LLAMAFORGE_PROT is not a setting" in found


def test_it_and_a_worker_come_and_go_without_each_other(installed_node: Node) -> None:
    node = installed_node
    before = node.shell(LISTING).stdout
    install(node)
    node.run("llamaforge", "worker", "install", timeout=120)
    token = node.run("llamaforge", "coordinator", "token", "--only-token").stdout
    join = ("llamaforge", "worker", "join", f"{node.address}:29400")
    node.run(*join, input=token, timeout=60)
    until_waiting(node)
    worker = main_pid(node)
    for how in ("restart", "kill -s KILL --kill-whom=main"):
        node.shell(f"systemctl {how} {COORDINATOR}")
    node.wait_for(
        lambda: "ready" in node.run("llamaforge", "nodes", check=False).stdout,
        seconds=60,
        what="the worker is back in the fleet",
        unit=COORDINATOR,
    )
    assert main_pid(node) == worker
    node.run("llamaforge", "worker", "install", "--uninstall", "--purge", timeout=60)
    assert properties(node, "ActiveState", unit=COORDINATOR)["ActiveState"] == "active"
    assert node.read(SETTINGS)
    node.run("llamaforge", "worker", "install", timeout=120)
    install(node, "--uninstall", "--purge")
    assert properties(node, "ActiveState", unit=UNIT)["ActiveState"] == "active"
    node.run("llamaforge", "worker", "install", "--uninstall", "--purge", timeout=60)
    assert node.shell(LISTING).stdout == before
