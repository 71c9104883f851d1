"""Every verb of systemctl in every state of the worker: off, waiting, training; and what the
environment that an administrator sets does to the ranks."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import lab_torchrun as torchrun
import pytest
from lab_fleet import Fleet, Job
from lab_service import UNIT, active, main_pid, processes, ranks, show, status, until_waiting

from lab import Lab, Node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CONF = "/etc/llamaforge/worker.conf"
PATIENCE = 6
"""Seconds that ranks wait for a silent one in the test of that."""


@pytest.fixture(scope="module")
def fleet(lab: Lab) -> Fleet:
    """One worker: whatever happens to it, happens to the job."""
    head, node = (lab.add(name, image="installed") for name in ("head", "node1"))
    lab.boot()
    fleet = Fleet(head)
    node.write("/etc/systemd/system/llamaforge-worker.service.d/90-mine.conf", MINE)
    fleet.join(node, "--master-addr", head.address, "--env", "FROM_INSTALL=one two")
    return fleet


MINE = "[Service]\nEnvironment=FROM_UNIT=three FROM_BOTH=unit\n"


@pytest.fixture
def node(fleet: Fleet) -> Node:
    """The worker's machine, waiting, with the settings that it was installed with."""
    (node,) = fleet.workers
    return node


@pytest.fixture
def job(fleet: Fleet, node: Node) -> Iterator[Job]:
    """A job that trains and would for hours."""
    number = len(fleet.head.run("ls", "/srv/jobs").stdout.split())
    job = fleet.train(f"long{number}", 500_000, "--save-steps 1000")
    job.until_step(3)
    node.wait_for(lambda: " step " in status(node), seconds=30, what="the status has a step")
    yield job
    job.cancel()
    until_waiting(node, seconds=60)


def systemctl(node: Node, verb: str, *options: str) -> tuple[int, str]:
    """Exit code and all that was said."""
    done = node.run("systemctl", verb, *options, UNIT, check=False, timeout=100)
    return done.returncode, (done.stdout + done.stderr).strip()


def told(node: Node, since: str) -> str:
    """The worker's lines since a cursor."""
    return node.run("journalctl", "-u", UNIT, f"--after-cursor={since}", "-o", "cat").stdout


def cursor(node: Node) -> str:
    """Where the journal ends now."""
    said = node.run("journalctl", "-n", "0", "--show-cursor").stdout
    return said.rpartition("cursor: ")[2].strip()


# ── off ───────────────────────────────────────────────────────────────────────────────────────


def test_off(node: Node) -> None:
    for _ in range(2):  # once more is harmless
        assert systemctl(node, "stop") == (0, "")
        assert systemctl(node, "is-active") == (3, "inactive")
    assert show(node, "Result") == "success"
    assert processes(node) == {}
    assert systemctl(node, "is-enabled") == (0, "enabled")
    code, said = systemctl(node, "status")
    assert (code, "Active: inactive (dead)" in said) == (3, True)
    code, said = systemctl(node, "reload")
    assert (code, "not active" in said) == (1, True)
    assert systemctl(node, "try-restart") == (0, "")
    assert not active(node)
    assert systemctl(node, "restart") == (0, "")  # starts what is off
    until_waiting(node)


# ── waiting ───────────────────────────────────────────────────────────────────────────────────


def test_waiting(node: Node) -> None:
    before = main_pid(node)
    assert systemctl(node, "start") == (0, "")
    assert main_pid(node) == before
    assert systemctl(node, "is-active") == (0, "active")
    code, said = systemctl(node, "status")
    assert code == 0
    assert "Active: active (running)" in said
    assert re.search(r'Status: "waiting for ', said)
    mark = cursor(node)
    assert systemctl(node, "reload") == (0, "")
    node.wait_for(
        lambda: "settings read again; nothing has changed" in told(node, mark),
        seconds=10,
        what="the reload is in the journal",
    )
    assert main_pid(node) == before
    assert systemctl(node, "restart") == (0, "")
    until_waiting(node)
    assert main_pid(node) != before
    assert list(processes(node)) == [main_pid(node)]


def test_a_reload_with_a_wrong_file_changes_nothing_and_says_so(node: Node) -> None:
    before, right, mark = main_pid(node), node.read(CONF), cursor(node)
    node.write(CONF, right.replace("MASTER_ADDR", "MASTER_ADRR"))
    systemctl(node, "reload")
    node.wait_for(
        lambda: "the settings stay as they were" in told(node, mark), seconds=10, what="it says so"
    )
    assert "did you mean MASTER_ADDR?" in told(node, mark)
    assert (main_pid(node), active(node)) == (before, True)
    until_waiting(node)
    node.write(CONF, right)
    assert systemctl(node, "reload") == (0, "")


def test_disabled_it_is_off_after_a_reboot_and_enabled_it_is_there(node: Node) -> None:
    systemctl(node, "disable")
    assert systemctl(node, "is-enabled") == (1, "disabled")
    assert active(node)  # what runs is left alone
    node.reboot()
    assert systemctl(node, "is-active") == (3, "inactive")
    systemctl(node, "enable")
    assert systemctl(node, "is-enabled") == (0, "enabled")
    assert not active(node)
    node.reboot()
    until_waiting(node)


# ── training ──────────────────────────────────────────────────────────────────────────────────


def test_training_is_not_disturbed_by_what_should_not_disturb_it(node: Node, job: Job) -> None:
    right, before = node.read(CONF), (main_pid(node), list(ranks(node)))
    assert len(before[1]) == 1
    assert systemctl(node, "start") == (0, "")
    assert systemctl(node, "is-active") == (0, "active")
    assert re.search(r'Status: "job \S+ step \d+/\d+', systemctl(node, "status")[1])
    for verb in ("disable", "enable"):
        assert systemctl(node, verb)[0] == 0
    assert systemctl(node, "reload") == (0, "")
    node.write(CONF, right + "NONSENSE\n")
    mark = cursor(node)
    systemctl(node, "reload")
    node.wait_for(lambda: "stay as they were" in told(node, mark), seconds=10, what="it says so")
    node.write(CONF, right)
    assert systemctl(node, "reload") == (0, "")
    step = max(job.steps())
    job.until_step(step + 3)
    assert (main_pid(node), list(ranks(node))) == before
    assert job.events("continues") == []


def test_a_stop_leaves_a_checkpoint_and_a_start_goes_on_from_it(node: Node, job: Job) -> None:
    began = time.monotonic()
    assert systemctl(node, "stop") == (0, "")
    assert time.monotonic() - began < 90  # TimeoutStopSec
    assert show(node, "Result") == "success"  # and nothing had to be killed
    assert processes(node) == {}
    (checkpoint,) = job.checkpoints()
    reached = job.steps()[-1]
    assert re.findall(r"\d+", checkpoint)[-1].lstrip("0") == str(reached)
    systemctl(node, "start")
    job.until_step(reached + 3)
    assert job.steps() == list(range(1, job.steps()[-1] + 1))  # nothing twice, nothing left out


def test_a_restart_lets_the_job_go_on(node: Node, job: Job) -> None:
    before = main_pid(node)
    assert systemctl(node, "restart") == (0, "")
    assert main_pid(node) != before
    reached = job.steps()[-1]
    job.until_step(reached + 3)
    assert job.steps() == list(range(1, job.steps()[-1] + 1))
    (event,) = job.events("continues")
    assert event["why"].startswith("node1 left")


# ── environment ───────────────────────────────────────────────────────────────────────────────


def test_variables_of_every_source_reach_a_rank(fleet: Fleet, node: Node) -> None:
    right, mark = node.read(CONF), cursor(node)
    node.write(
        CONF,
        f'{right}\nexport FROM_FILE="four # 4"\nexport FROM_BOTH=file\n'
        "export TRANSFORMERS_CACHE=/var/cache/llamaforge/old\n",
    )
    assert systemctl(node, "reload") == (0, "")
    job = fleet.train("environment", 500_000)
    job.until_step(1)
    (pid,) = ranks(node)
    seen = node.shell(f"tr '\\0' '\\n' < /proc/{pid}/environ").stdout.splitlines()
    assert "FROM_INSTALL=one two" in seen
    assert "FROM_UNIT=three" in seen
    assert "FROM_FILE=four # 4" in seen
    assert "FROM_BOTH=file" in seen
    assert "HF_HUB_CACHE=/var/cache/llamaforge/old" in seen
    assert [line for line in seen if "TOKEN" in line or line.startswith("CREDENTIALS")] == []
    said = told(node, mark)
    assert "TRANSFORMERS_CACHE is read no longer by transformers" in said
    job.cancel()
    node.write(CONF, right)
    systemctl(node, "reload")
    until_waiting(node)


def test_one_setting_says_how_long_ranks_wait_for_a_silent_one(fleet: Fleet, node: Node) -> None:
    """A rank that is stopped answers nothing and closes nothing: only time ends the waiting."""
    head, right, mark = fleet.head, node.read(CONF), cursor(node)
    setting = f"LLAMAFORGE_NETWORK_TIMEOUT={PATIENCE}"
    node.write(CONF, f"{right}\n{setting}\n")
    systemctl(node, "reload")
    line = torchrun.line(head, "--max-steps 100000", "--epochs 4000", "--output-dir /root/silent")
    child = head.spawn("env", setting, *line)
    head.wait_for(lambda: torchrun.steps(head, "/root/silent") >= 3, seconds=120, what="it trains")
    (pid,) = ranks(node)
    node.run("kill", "-STOP", str(pid))
    began = time.monotonic()
    out, err = child.communicate(timeout=120)
    took = time.monotonic() - began
    assert child.returncode != 0
    assert PATIENCE - 1 < took < 100  # with the default of 600 s it would still wait
    assert "rank 0 lost a peer" in out + err, out + err
    until_waiting(node, seconds=60)
    assert "the attempt failed" in told(node, mark)
    assert list(processes(node)) == [main_pid(node)]
    node.write(CONF, right)
    systemctl(node, "reload")
