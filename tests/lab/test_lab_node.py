"""What the lab promises about one machine: disk, power, limits, and that it is a stranger's."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from lab import Lab, LabError, Node

STANDARD = "bin boot dev etc home lib lib32 lib64 libx32 media mnt opt proc root run sbin srv sys"


@pytest.fixture(scope="module")
def node(lab: Lab) -> Iterator[Node]:
    node = lab.add("machine")
    node.boot()
    return node


def test_it_is_a_strange_machine(node: Node, tmp_path):
    assert node.run("hostname").stdout == "machine\n"
    assert node.run("systemctl", "is-system-running").stdout == "running\n"
    empty = ("/home", "/mnt", "/opt", "/root", "/usr/local/bin", "/var/tmp")
    seen = node.run("find", *empty, "-mindepth", "1", "-not", "-path", "*/systemd-private-*")
    assert set(seen.stdout.split()) <= {"/root/.ssh"}  # which systemd makes
    assert tmp_path.exists()
    assert not node.path(str(tmp_path)).exists()
    top = set(node.run("ls", "-A", "/").stdout.split())
    assert {"bin", "etc", "usr", "var"} <= top <= {*STANDARD.split(), "tmp", "usr", "var"}
    assert node.run("ls", "/srv/llamaforge/src").stdout == "llamaforge\n"
    assert node.run("ls", "-A", "/srv/llamaforge/.venv").stdout == ""
    assert not node.path("/etc/pip.conf").exists()


def test_it_knows_its_fleet_and_nobody_else(lab: Lab, node: Node):
    assert node.run("getent", "hosts", "machine").stdout.split()[0] == node.address
    assert node.run("getent", "hosts", "lab-host").stdout.split()[0] == lab.gateway
    begun = time.monotonic()
    assert node.run("getent", "hosts", "example.org", check=False).returncode == 2
    assert time.monotonic() - begun < 3
    assert node.run("ip", "route", "show", "default").stdout == ""


def test_commands_get_nothing_of_the_callers_environment(node: Node, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    words = node.run("env", env={"GIVEN": "1"}).stdout.split("\n")
    names = {word.partition("=")[0] for word in words if word}
    assert names <= {"HOME", "USER", "LOGNAME", "LANG", "PATH", "GIVEN", "_", "PWD", "SHLVL"}
    assert "GIVEN" in names


def test_commands_fail_loudly_run_as_others_and_take_input(node: Node):
    with pytest.raises(LabError, match=r"machine: `false` failed with status 1"):
        node.run("false")
    assert node.run("false", check=False).returncode == 1
    assert node.run("cat", input="said").stdout == "said"
    assert node.run("id", "-un", user="nobody").stdout == "nobody\n"
    assert node.shell("exit 3", check=False).returncode == 3


def test_a_command_that_takes_too_long_is_ended_inside_as_well(node: Node):
    with pytest.raises(LabError, match="ran past 0 s"):
        node.run("sleep", "1234", timeout=0.3)
    node.wait_for(lambda: node.run("pgrep", "-f", "sleep 123[4]", check=False).returncode == 1, 5)


def test_what_is_spawned_runs_and_can_be_read(node: Node):
    child = node.spawn("sh", "-c", "echo begun; exec sleep 1235")
    assert child.stdout is not None
    assert child.stdout.readline() == "begun\n"
    assert child.poll() is None
    assert node.run("pgrep", "-fc", "sleep 123[5]").stdout == "1\n"


@pytest.mark.parametrize("user", [None, "nobody"])
def test_commands_can_do_no_more_than_the_node_itself(node: Node, user):
    def bounds(process: str) -> str:
        return node.run("grep", "CapBnd", f"/proc/{process}/status", user=user).stdout

    assert bounds("self") == bounds("1")
    # With this one, setting a node's clock would set the box's.
    assert not int(bounds("self").split()[1], 16) >> 25 & 1


def test_a_signal_reaches_the_command_which_may_handle_it(node: Node):
    handling = 'trap "echo handled; exit 7" TERM; echo ready; while :; do sleep 0.05; done'
    child = node.spawn("bash", "-c", handling)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.terminate()
    assert child.communicate(timeout=10)[0] == "handled\n"
    assert child.returncode == 7


def test_files_have_the_mode_and_owner_that_was_asked(node: Node):
    node.write("/etc/example/secret", "text\n", mode=0o600, owner="nobody:nogroup")
    assert (
        node.run("stat", "-c", "%a %U %G", "/etc/example/secret").stdout == "600 nobody nogroup\n"
    )
    assert node.read("/etc/example/secret") == "text\n"
    # Links are followed inside the node: this one would lead to the host's own file.
    node.run("ln", "-s", "/etc/example/secret", "/etc/example/link")
    assert node.path("/etc/example/link").read_text() == "text\n"


def test_a_power_cut_keeps_the_disk_and_the_journal_and_loses_the_rest(lab: Lab):
    node = lab.add("cut")
    node.boot()
    node.shell("echo kept > /root/file; echo lost > /run/file; logger -t lab before the cut; sync")
    node.run("journalctl", "--sync")
    first = node.run("cat", "/proc/sys/kernel/random/boot_id").stdout
    node.spawn("sleep", "1000")
    node.power_cut()
    assert not node.alive
    with pytest.raises(LabError, match="cut is off; boot it first"):
        node.run("true")
    assert node.read("/root/file") == "kept\n"
    node.boot()
    assert node.read("/root/file") == "kept\n"
    assert not node.path("/run/file").exists()
    said = [entry["MESSAGE"] for entry in node.journal(None, "-t", "lab", "-b", "-1")]
    assert said == ["before the cut"]
    assert len(node.run("journalctl", "--list-boots", "-q").stdout.splitlines()) == 2
    assert first != ""


def test_reboot_from_inside_and_shutdown(lab: Lab):
    node = lab.add("again")
    node.boot()
    unit = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\n"
    unit += "ExecStop=touch /root/stopped\n[Install]\nWantedBy=multi-user.target\n"
    node.write("/etc/systemd/system/example.service", unit)
    node.run("systemctl", "enable", "--now", "example.service")
    # Whoever is inside at the time does not hold up the end.
    child = node.spawn("sleep", "1000")
    assert node.reboot() < 30
    assert node.path("/root/stopped").exists()
    assert node.run("systemctl", "is-active", "example.service").stdout == "active\n"
    assert child.wait(1) != 0
    node.shutdown()
    assert not node.alive


def test_freezing_stops_everything_and_thawing_lets_it_go_on(lab: Lab, node: Node):
    node.spawn("sh", "-c", "while :; do date +%s.%N > /root/tick; sleep 0.05; done")
    node.wait_for(lambda: node.path("/root/tick").exists(), 5, "it ticks")
    node.freeze()
    before = node.read("/root/tick")
    time.sleep(0.3)
    assert node.read("/root/tick") == before
    node.thaw()
    node.wait_for(lambda: node.read("/root/tick") != before, 5, "it ticks again")


# The share of a core that a busy loop gets in a second and a half.
SPIN = """
import time
begun, used = time.monotonic(), time.process_time()
while time.monotonic() < begun + 1.5:
    pass
print((time.process_time() - used) / (time.monotonic() - begun))
"""


def share(node: Node) -> float:
    return float(node.run("python3", "-c", SPIN).stdout)


def times_held_back(node: Node) -> int:
    stat = next(
        file for group in node.machine.groups.folders if (file := group / "cpu.stat").exists()
    )
    return int(stat.read_text().split("nr_throttled ")[1].split()[0])


def test_a_throttled_node_gets_its_share_of_a_core_and_no_more(node: Node):
    node.throttle(0.25)
    assert share(node) < 0.32
    assert (before := times_held_back(node)) > 0
    node.throttle(None)
    # How much more it gets now depends on what else this box does.
    share(node)
    assert times_held_back(node) == before


def test_limits_of_units_hold_inside(node: Node):
    eat = "x = bytearray(200_000_000); print(len(x))"
    run = ["systemd-run", "--quiet", "--wait", "--pipe", "-p"]
    free = node.run(*run, "MemoryMax=400M", "python3", "-c", eat, check=False)
    assert free.stdout == "200000000\n"
    limited = node.run(
        *run, "MemoryMax=50M", "-p", "MemorySwapMax=0", "python3", "-c", eat, check=False
    )
    assert limited.stdout == ""
    assert limited.returncode != 0


def test_waiting_in_vain_names_the_thing_and_shows_the_journal(node: Node):
    node.run("systemd-run", "--unit=noisy", "--wait", "echo", "a clue")
    node.run("journalctl", "--sync")
    with pytest.raises(LabError, match=r"machine: the moon: not within 0\.2 s(?s:.*)a clue"):
        node.wait_for(lambda: False, 0.2, "the moon", unit="noisy")
