"""Starts on boot, runs with nobody logged in, comes back from every end: on real systemd."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest
from lab_service import (
    UNIT,
    active,
    install,
    limits_memory,
    main_pid,
    processes,
    show,
    status,
    until_waiting,
)

from lab import Lab, Node

MASTER = "10.255.255.1"
"""An address where no torchrun will ever be."""


@pytest.fixture(scope="module")
def node(lab: Lab) -> Iterator[Node]:
    """A node on which the service was installed once, by one command."""
    made = lab.add("node1", image="installed")
    made.boot()
    install(made, "--master-addr", MASTER)
    yield made
    made.power_cut()


def nobody_is_logged_in(node: Node) -> bool:
    return node.run("loginctl", "--no-legend", "list-sessions").stdout.strip() == ""


def test_it_is_there_after_a_reboot_and_after_a_power_cut(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    took = {}
    for how, act in (("reboot", node.reboot), ("power cut", node.power_cut)):
        begin = time.monotonic()
        act()
        if not node.alive:
            begin = time.monotonic()
            node.boot()
        until_waiting(node)
        took[how] = time.monotonic() - begin
        assert status(node) == f"waiting for {MASTER}:29500"
        assert show(node, "UnitFileState") == "enabled"
        assert nobody_is_logged_in(node)
        assert processes(node)[main_pid(node)].endswith("llamaforge worker run")
    with capsys.disabled():
        said = ", ".join(f"{how} to waiting {seconds:.1f} s" for how, seconds in took.items())
        print(f" [{said}]", end="")


@contextlib.contextmanager
def drop_in(node: Node, lines: str) -> Iterator[None]:
    """The unit with other values, for the block."""
    folder = f"/run/systemd/system/{UNIT}.service.d"
    node.shell(f"mkdir -p {folder}")
    node.write(f"{folder}/90-test.conf", f"[Service]\n{lines}\n")
    node.shell(f"systemctl daemon-reload; systemctl restart --no-block {UNIT}")
    if "Memory" not in lines:
        until_waiting(node)
    try:
        yield
    finally:
        node.shell(f"rm {folder}/90-test.conf; systemctl daemon-reload")
        node.shell("rm -rf /run/systemd/system.control; systemctl daemon-reload")
        node.run("systemctl", "restart", UNIT)
        until_waiting(node)


@pytest.mark.parametrize("signal", ["KILL", "SEGV", "ABRT", "QUIT"])
def test_a_worker_that_is_killed_comes_back(node: Node, signal: str) -> None:
    before = main_pid(node)
    node.run("kill", f"-{signal}", str(before))
    node.wait_for(lambda: main_pid(node) not in (0, before), seconds=20, what="a new worker")
    until_waiting(node)
    assert list(processes(node)) == [main_pid(node)]


def test_twenty_crashes_in_a_row_end_in_waiting(node: Node) -> None:
    with drop_in(node, "RestartSec=100ms"):
        for _ in range(20):
            victim = main_pid(node)
            node.run("kill", "-KILL", str(victim))
            node.wait_for(
                lambda victim=victim: active(node) and main_pid(node) not in (0, victim),
                seconds=20,
                what="another",
            )
        node.wait_for(lambda: "ended without order" in status(node), seconds=20, what="it says so")
        assert active(node)
        until_waiting(node, seconds=60)


def test_the_watchdog_ends_a_worker_that_is_frozen(node: Node) -> None:
    with drop_in(node, "WatchdogSec=3s\nTimeoutAbortSec=1s"):
        frozen = main_pid(node)
        node.run("kill", "-STOP", str(frozen))
        node.wait_for(lambda: main_pid(node) not in (0, frozen), seconds=30, what="a new worker")
        until_waiting(node)
        said = node.run("journalctl", "-u", UNIT, "-n", "200", "-o", "cat").stdout
        assert "Watchdog timeout" in said


def test_a_worker_that_the_kernel_kills_for_memory_comes_back(node: Node) -> None:
    if not limits_memory(node):
        pytest.skip("this box's control groups limit no memory inside nodes")
    with drop_in(node, "MemoryMax=24M"):
        node.wait_for(
            lambda: int(show(node, "NRestarts")) >= 2, seconds=30, what="it is killed, again"
        )
        assert "status=9/KILL" in node.run("journalctl", "-u", UNIT, "-n", "50", "-o", "cat").stdout
        node.run("systemctl", "set-property", "--runtime", UNIT, "MemoryMax=infinity")
        until_waiting(node, seconds=60)


def test_settings_that_a_restart_cant_help_end_it_for_good(node: Node) -> None:
    right = node.read("/etc/llamaforge/worker.conf")
    node.write("/etc/llamaforge/worker.conf", "MASTER_ADRR=10.0.0.1\n")
    node.run("systemctl", "restart", UNIT, check=False)
    node.wait_for(lambda: show(node, "ActiveState") == "failed", seconds=20, what="it has failed")
    assert show(node, "ExecMainStatus") == "78"
    said = node.run("journalctl", "-u", UNIT, "-n", "20", "-o", "cat").stdout
    assert "did you mean MASTER_ADDR?" in said
    node.write("/etc/llamaforge/worker.conf", right)
    node.run("systemctl", "start", UNIT)
    until_waiting(node)


def test_what_is_missing_is_in_the_journal_and_the_status_until_it_comes(node: Node) -> None:
    right = node.read("/etc/llamaforge/worker.conf")
    node.write("/etc/llamaforge/worker.conf", right + "HF_HOME=/mnt/models/hf\n")
    node.run("systemctl", "restart", UNIT)
    wanted = "HF_HOME=/mnt/models/hf is not there"
    node.wait_for(lambda: wanted in status(node), seconds=20, what="the status says so")
    assert active(node)
    node.shell("install -d -m 755 /mnt/models/hf")
    until_waiting(node)
    lines = node.journal(UNIT, "--since", "-60s")
    assert sum(wanted in str(line["MESSAGE"]) for line in lines) == 1
    node.write("/etc/llamaforge/worker.conf", right)
    node.run("systemctl", "restart", UNIT)
    until_waiting(node)
