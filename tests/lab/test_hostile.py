"""What other users of a node, and bad luck, can't do to the service."""

from __future__ import annotations

import pytest
from lab_service import UNIT, active, install, main_pid, status

from lab import Node

TOKEN = "geheim-of-the-fleet"
LEFT = (
    "find /etc /usr/local /var/lib /var/cache /var/log /run -xdev -name '*llamaforge*'"
    " ! -path /usr/local/bin/llamaforge ! -name llamaforge-install.lock"
)
CUT = """
import os, signal, sys
from llamaforge.cli.main import main
from llamaforge.service.machine import Machine
left, write = int(sys.argv.pop(1)), Machine.write
def cut(self, *what):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, *what)
Machine.write = cut
main()
"""
SPOOF = """
import socket
word = b"STATUS=mine\\nMAINPID=1\\nSTOPPING=1"
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(word, "/run/systemd/notify")
"""
CROWD = """
import socket, time
held = [socket.create_connection(("127.0.0.1", 29500)) for _ in range(80)]
print("here", flush=True)
time.sleep(60)
"""


def test_another_user_reads_plants_and_holds_nothing(installed_node: Node) -> None:
    node = installed_node
    secret = ("--token-file", "-", "--env", "HF_TOKEN=geheim-of-the-hub")
    node.run("llamaforge", "worker", "install", *secret, input=TOKEN + "\n", timeout=120)
    node.wait_for(lambda: status(node).startswith("waiting"), what="the worker waits")
    pid = main_pid(node)
    for forbidden in (
        f"cat /run/credentials/{UNIT}.service/token",
        f"cat /proc/{pid}/environ",
        "cat /etc/llamaforge/environment",
        "cat /var/lib/llamaforge-install/manifest.json",
        "touch /run/llamaforge/restart-when-idle",
        "ln -s /etc/passwd /var/lib/llamaforge/identity",
        "flock --nonblock /run/llamaforge-install.lock true",
        "flock --nonblock /opt/llamaforge/.lock true",
    ):
        assert node.shell(forbidden, check=False, user="nobody").returncode != 0, forbidden
    node.run("python3", "-c", SPOOF, user="nobody")
    node.run("python3", "-c", SPOOF, user="llamaforge")  # as a rank could
    assert status(node).startswith("waiting")
    assert main_pid(node) == pid
    said = node.shell("journalctl --no-pager; systemctl show llamaforge-worker; ps axww").stdout
    assert "geheim" not in said


def test_a_crowd_of_one_user_leaves_room_for_the_fleet(installed_node: Node) -> None:
    node = installed_node
    install(node, "--coordinator", "10.0.0.9:29400")  # elsewhere: 29500 is the worker's
    child = node.spawn("runuser", "-u", "nobody", "--", "python3", "-c", CROWD)
    node.wait_for(
        lambda: (
            node.run("ss", "-Htn", "state", "established", "sport = :29500").stdout.count("\n")
            >= 16
        ),
        what="the connections stand",
    )
    ask = (
        "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode())"
    )
    answer = node.run("python3", "-c", ask, f"http://{node.address}:29500/health")
    assert '"ready":true' in answer.stdout
    child.kill()


@pytest.mark.parametrize("writes", [1, 4, 7])
def test_killed_in_the_middle_it_is_installed_or_removed_whole(
    installed_node: Node, writes: int
) -> None:
    node = installed_node
    before = node.shell(LEFT).stdout
    node.write("/root/cut.py", CUT)
    python = "/opt/llamaforge/current/bin/python3"
    cut = (python, "/root/cut.py", str(writes), "worker", "install")
    options = ("--mail-to", "root@localhost", "--env", "A=b", "--no-start")
    assert node.run(*cut, *options, "--memory", "2G", check=False).returncode != 0
    node.run("llamaforge", "worker", "install", "--uninstall", "--purge", timeout=120)
    assert node.shell(LEFT).stdout == before

    assert node.run(*cut, *options, "--memory", "2G", check=False).returncode != 0
    said = node.run("llamaforge", "worker", "install", "--memory", "3G", timeout=120).stdout
    assert "edited" not in said
    assert active(node)
    assert node.run("systemctl", "show", UNIT, "-P", "MemoryMax").stdout.strip() == str(3 << 30)


def test_of_two_installations_at_once_one_is_told_to_wait(installed_node: Node) -> None:
    node = installed_node
    command = "llamaforge worker install --no-start"
    said = node.shell(f"{command} & {command}; wait", check=False, timeout=120)
    assert "Traceback" not in said.stderr
    assert "edited" not in said.stdout
    held = node.shell(f"flock /run/llamaforge-install.lock {command}", check=False)
    assert held.returncode == 2
    assert "under way" in held.stderr


def test_a_read_only_disk_is_told_in_a_sentence(installed_node: Node) -> None:
    node = installed_node
    said = node.shell(
        "mount --bind /usr/local/lib /usr/local/lib && mount -o remount,bind,ro /usr/local/lib;"
        "llamaforge worker install --no-start; echo $?; umount /usr/local/lib",
        check=False,
    )
    assert said.stdout.strip().splitlines()[-1] == "1"
    assert "Read-only file system" in said.stderr
    assert "Traceback" not in said.stderr
