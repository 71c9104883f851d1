"""The journal as the one place for logs: a burst of output, and journalctl's ways to look."""

from __future__ import annotations

import json
from collections.abc import Iterator

import lab_torchrun as torchrun
import pytest
from lab_service import UNIT, install, until_waiting

from lab import Lab, Node

BURST = 200_000
CHATTY = f"""
import atexit, os, sys

def say_much():
    lines = [b"burst %d of a rank that says much\\n" % n for n in range({BURST})]
    for begin in range(0, {BURST}, 500):
        rest = b"".join(lines[begin:begin + 500])
        while rest:
            rest = rest[os.write(1, rest):]

is_rank = "llamaforge.train.classic.peer" in sys.orig_argv
if is_rank and "torch.distributed.run" not in sys.orig_argv:
    atexit.register(say_much)
"""
"""A rank's own code may write anything; this writes at the rank's end."""


@pytest.fixture(scope="module")
def worker(lab: Lab) -> Iterator[Node]:
    """A worker whose rank has said very much in its one job."""
    master = lab.add("master", image="installed")
    node = lab.add("worker", image="installed")
    lab.boot()
    node.write("/opt/chatty/sitecustomize.py", CHATTY)
    install(node, "--master-addr", master.address, "--env", "PYTHONPATH=/opt/chatty")
    torchrun.train(master, "--max-steps 3", "--output-dir /root/job")
    until_waiting(node, seconds=180)
    yield node
    node.power_cut()


def test_no_line_of_a_burst_is_lost_or_doubled(worker: Node) -> None:
    worker.run("journalctl", "--sync")
    counted = worker.shell(
        f"journalctl -u {UNIT} -o cat | grep -o 'burst [0-9]*' | sort | uniq -c "
        "| awk '{ times[$1]++ } END { for (n in times) print n, times[n] }'",
        timeout=120,
    ).stdout
    assert counted.split("\n")[:-1] == [f"1 {BURST}"]
    assert (
        "Suppressed" not in worker.run("journalctl", "-u", "systemd-journald", "-o", "cat").stdout
    )


def test_a_burst_has_its_rank(worker: Node) -> None:
    lines = worker.journal(UNIT, "LLAMAFORGE_RANK=1", "-n", "100")
    # The worker's own last words about the rank (its last step) may stand among them.
    burst = [line for line in lines if line["MESSAGE"].startswith("classic| rank 1: burst")]
    assert burst
    assert all(line["LLAMAFORGE_JOB"] for line in burst)
    assert all(line["SYSLOG_IDENTIFIER"] == UNIT for line in burst)


def test_journalctl_as_in_the_guide(worker: Node) -> None:
    last = worker.run("journalctl", "-u", UNIT, "-n", "5", "-o", "json").stdout.splitlines()
    assert len(last) == 5
    assert all(json.loads(line)["_SYSTEMD_UNIT"] == f"{UNIT}.service" for line in last)
    since = worker.run("journalctl", "-u", UNIT, "--since", "1 hour ago", "-o", "cat").stdout
    assert "waiting for a job" in since
    assert worker.run("journalctl", "-u", UNIT, "--since", "+1h", "-q", check=False).stdout == ""
    follower = worker.spawn("journalctl", "-u", UNIT, "-f", "-n", "1", "-o", "cat")
    assert follower.stdout is not None
    assert follower.stdout.readline()  # from here on it follows
    worker.run("systemctl", "reload", UNIT)
    assert any("settings read again" in line for line in iter(follower.stdout.readline, ""))
    follower.kill()
    follower.communicate()
