"""`./install.sh` on a real machine: update, way back, interruption, a service without root.

The nodes have no network: an update with the same libraries needs none. The first installation,
which downloads them, is what makes the lab's own image.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from source_tree import COPY, PREFIX, SOURCE, another_torch

from lab import Lab, Node

UNIT = "llamaforge-worker.service"


@pytest.fixture(scope="module")
def node(lab: Lab) -> Iterator[Node]:
    node = lab.add("machine", image="installed")
    node.boot()
    node.shell(COPY)
    node.run(f"{SOURCE}/install.sh", "--torch", "cpu", "--no-service", timeout=200)
    yield node
    node.power_cut()


def script(node: Node, *options: str, check: bool = True, **how: str) -> str:
    done = node.run(f"{SOURCE}/install.sh", *options, check=check, timeout=200, **how)
    return done.stdout + done.stderr


def current(node: Node, link: str = "current") -> str:
    return node.run("readlink", f"{PREFIX}/{link}").stdout.strip()


def pid(node: Node) -> str:
    return node.run("systemctl", "show", UNIT, "--property=MainPID", "--value").stdout.strip()


def edit(node: Node, text: str) -> None:
    node.shell(f"echo '# {text}' >>{SOURCE}/src/llamaforge/paths.py")


def test_the_same_source_again_changes_nothing_but_makes_the_service(node: Node) -> None:
    before = current(node)
    said = script(node, "--torch", "cpu", "--", "--memory", "3G")
    assert current(node) == before
    assert "already there" in said
    assert node.run("systemctl", "is-active", UNIT).stdout.strip() == "active"
    first = pid(node)
    script(node, "--torch", "cpu")
    assert pid(node) == first


def test_an_update_takes_seconds_and_restarts_the_worker(node: Node) -> None:
    before, first = current(node), pid(node)
    edit(node, "one")
    script(node, "--torch", "cpu")
    assert current(node) != before
    assert current(node, "previous") == before
    assert pid(node) not in (first, "0")
    running = node.shell(f"tr '\\0' ' ' </proc/{pid(node)}/cmdline").stdout
    assert running.startswith(f"{PREFIX}/{current(node)}/bin/python3")
    libraries = node.shell(f"ls {PREFIX}/libraries").stdout.split()
    assert len(libraries) == 1


def test_the_way_back(node: Node) -> None:
    new, old = current(node), current(node, "previous")
    script(node, "--rollback")
    assert (current(node), current(node, "previous")) == (old, new)
    running = node.shell(f"tr '\\0' ' ' </proc/{pid(node)}/cmdline").stdout
    assert running.startswith(f"{PREFIX}/{old}/bin/python3")
    assert "MemoryMax=3G" in node.run("systemctl", "cat", UNIT).stdout


def test_an_interrupted_update_switches_nothing_and_is_cleaned(node: Node) -> None:
    before = current(node)
    edit(node, "two")
    node.shell(
        f"setsid {SOURCE}/install.sh --torch cpu >/dev/null 2>&1 & group=$!;"
        f" for _ in $(seq 300); do ls -d {PREFIX}/versions/*/wheels 2>/dev/null && break;"
        " sleep 0.05; done; kill -KILL -- -$group"
    )
    assert current(node) == before
    assert node.run("llamaforge", "--version").returncode == 0
    unfinished = f"cd {PREFIX}/versions && for v in *; do test -e $v/complete || echo $v; done"
    assert node.shell(unfinished).stdout.split()
    edit(node, "three")  # another version, so that it is not just built again
    script(node, "--torch", "cpu")
    assert node.shell(unfinished).stdout.split() == []
    assert len(node.shell(f"ls {PREFIX}/versions").stdout.split()) == 2


def test_another_torch_waits_for_the_worker_to_be_idle(node: Node) -> None:
    """Libraries with another torch, made of links to the first: the worker must not restart now."""
    first = pid(node)
    another_torch(node)
    said = script(node, "--torch", "cpu")
    assert "when it is idle" in said
    # The worker has no job, so it is idle at once.
    node.wait_for(lambda: pid(node) not in (first, "0"), seconds=30, what="worker restarts")
    running = node.shell(f"tr '\\0' ' ' </proc/{pid(node)}/cmdline").stdout
    assert running.startswith(f"{PREFIX}/{current(node)}/bin/python3")
    assert node.shell("ls /run/llamaforge").stdout.count("restart-when-idle") == 0


def test_mistakes_are_named(node: Node) -> None:
    for options, named in (
        (("--torsh", "cpu"), "--torsh"),
        (("--torch", "tpu"), "cpu, cuda or auto"),
        (("--purge",), "--uninstall"),
        (("--python", "/nowhere/python3"), "/nowhere/python3"),
    ):
        done = node.run(f"{SOURCE}/install.sh", *options, check=False)
        assert done.returncode == 2
        assert named in done.stderr
    refused = node.run(f"{SOURCE}/install.sh", user="nobody", check=False)
    assert refused.returncode == 2
    assert "sudo" in refused.stderr
    no_gpu = node.run(f"{SOURCE}/install.sh", "--torch", "cuda", check=False)
    assert no_gpu.returncode == 1
    assert "nvidia-smi" in no_gpu.stderr


def test_too_little_room_is_noticed_before_anything_is_downloaded(node: Node) -> None:
    node.shell("mkdir /small && mount -t tmpfs -o size=100M none /small")
    done = node.run(f"{SOURCE}/install.sh", "--prefix", "/small/x", check=False)
    assert done.returncode == 1
    assert "free" in done.stderr
    assert node.shell("ls /small/x/libraries 2>/dev/null || true").stdout == ""


def test_another_place_is_where_the_service_starts_and_what_is_removed(lab: Lab) -> None:
    node = lab.add("elsewhere", image="installed")
    node.boot()
    node.shell(COPY)
    # The libraries can't be downloaded here: they are those of the usual place.
    node.shell(f"mkdir -p /srv/ours/libraries && ln -s {PREFIX}/libraries/* /srv/ours/libraries/")
    node.write("/srv/ours/data.txt", "not LlamaForge's")
    where = ("--prefix", "/srv/ours")
    script(node, *where, "--torch", "cpu", "--", "--coordinator", "192.0.2.1:29400")
    assert node.run("systemctl", "is-active", UNIT).stdout.strip() == "active"
    running = node.shell(f"tr '\\0' ' ' </proc/{pid(node)}/cmdline").stdout
    assert running.startswith("/srv/ours/versions/")
    script(node, *where, "--uninstall", "--purge")
    assert node.shell("ls -A /srv/ours").stdout.split() == ["data.txt"]
    node.power_cut()


def test_removed_nothing_is_left(node: Node) -> None:
    script(node, "--uninstall", "--purge")
    left = "ls -d /opt/llamaforge /usr/local/bin/llamaforge /etc/llamaforge /var/lib/llamaforge*"
    assert node.shell(f"{left} 2>/dev/null || true").stdout == ""
    assert UNIT not in node.run("systemctl", "list-unit-files").stdout
    assert node.shell("id llamaforge", check=False).returncode != 0


def test_without_root_a_service_of_ones_own(lab: Lab) -> None:
    node = lab.add("desk", image="installed")
    node.boot()
    node.shell(COPY)
    node.shell("useradd --create-home --shell /bin/bash carol && loginctl enable-linger carol")
    # The libraries can't be downloaded here: they are the machine's.
    node.shell(f"chmod -R a+rX {SOURCE}")
    mine = "/home/carol/.local/share/llamaforge"
    node.shell(f"install -d -o carol -g carol {mine} {mine}/libraries", user="carol")
    node.shell(f"ln -s {PREFIX}/libraries/* {mine}/libraries/", user="carol")
    node.wait_for(
        lambda: node.run("loginctl", "show-user", "carol", "-p", "State").stdout != "",
        seconds=20,
        what="carol's services",
    )
    script(node, "--user", "--torch", "cpu", "--", "--coordinator", "192.0.2.1:29400", user="carol")
    state = node.run("systemctl", "--user", "is-active", UNIT, user="carol").stdout.strip()
    assert state == "active"
    shown = node.run("systemctl", "--user", "show", UNIT, "-p", "StatusText", user="carol").stdout
    assert "coordinator" in shown
    assert node.shell("ls /usr/local/lib/systemd 2>/dev/null || true").stdout == ""
    node.reboot()
    node.wait_for(
        lambda: (
            node.run("systemctl", "--user", "is-active", UNIT, user="carol", check=False).stdout
            == "active\n"
        ),
        seconds=30,
        what="carol's worker after a reboot, with nobody logged in",
    )
    script(node, "--user", "--uninstall", "--purge", user="carol")
    left = node.shell("find /home/carol -iname '*llamaforge*'").stdout
    assert left == ""
    node.power_cut()
