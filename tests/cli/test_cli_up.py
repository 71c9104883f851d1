"""`up`, `down` and `status` as people use them: real processes, a state folder of their own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM

import pytest

from fleet_rig import alive, cmdline, pids
from llamaforge.cli.embedded import HEALTHY_SECONDS, EmbeddedFleet
from llamaforge.cli.up import Changes
from llamaforge.cli.words import ago
from llamaforge.errors import FleetError, UserError
from llamaforge.spec.states import JobState, NodeState
from llamaforge.wire.api import JobStatus, NodeStatus, Status

PATIENCE = 30.0


class Shell:
    """Runs `llamaforge` with a state folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {
            **os.environ,
            "XDG_STATE_HOME": str(root / "state"),
            "XDG_CACHE_HOME": str(root / "cache"),
        }
        self.started: list[subprocess.Popen[str]] = []

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "llamaforge", *args],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, *args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "llamaforge", *args],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def processes(self) -> list[int]:
        """The coordinator and workers that belong to this shell's state folder."""
        return [pid for pid in pids() if f"--state-dir {self.root}/state" in cmdline(pid)]

    def wait(self, ready: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + PATIENCE
        while not ready():
            assert time.monotonic() < until, f"not so after {PATIENCE} s: {what}"
            time.sleep(0.05)

    def read_until(self, process: subprocess.Popen[str], text: str) -> str:
        seen = ""
        assert process.stdout is not None
        while text not in seen:
            line = process.stdout.readline()
            assert line, f"ended without saying {text!r}: {seen}"
            seen += line
        return seen


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    for process in shell.started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    shell.run("down")
    shell.wait(lambda: shell.processes() == [], "no process is left over")


def test_up_shows_changes_until_ctrl_c(shell: Shell) -> None:
    up = shell.start("up", "--workers", "2", "--port", "0")
    seen = shell.read_until(up, "worker-2 waits for a job")
    assert "coordinator listens on 127.0.0.1:" in seen
    status = json.loads(shell.run("status", "--json").stdout)
    assert [(n["name"], n["state"]) for n in status["nodes"]] == [
        ("worker-1", "ready"),
        ("worker-2", "ready"),
    ]
    assert "worker-1" in shell.run("status").stdout
    victim = next(pid for pid in shell.processes() if "--name worker-2" in cmdline(pid))
    time.sleep(HEALTHY_SECONDS)  # one that ends sooner would end again and stops the fleet
    os.kill(victim, SIGKILL)
    shell.read_until(up, "worker-2 has ended; it is started again")
    shell.read_until(up, "worker-2 waits for a job")
    up.send_signal(SIGINT)
    assert up.wait(PATIENCE) == 0
    assert shell.processes() == []
    gone = shell.run("status")
    assert gone.returncode == 1
    assert "llamaforge up" in gone.stderr


def test_a_coordinator_that_was_killed_is_started_again(shell: Shell) -> None:
    up = shell.start("up", "--workers", "1", "--port", "0")
    shell.read_until(up, "worker-1 waits for a job")
    before = json.loads(shell.run("status", "--json").stdout)
    time.sleep(HEALTHY_SECONDS)  # one that ends sooner would end again and stops the fleet
    os.kill(before["pid"], SIGKILL)
    shell.read_until(up, "coordinator has ended; it is started again")

    def ready() -> bool:
        said = shell.run("status", "--json")
        if said.returncode != 0:
            return False
        after = json.loads(said.stdout)
        return after["pid"] != before["pid"] and after["nodes"][0]["state"] == "ready"

    shell.wait(ready, "the worker is back at the new one")
    up.send_signal(SIGTERM)
    up.wait(PATIENCE)
    assert shell.processes() == []


def test_detached_until_down_and_a_second_up_is_refused(shell: Shell) -> None:
    up = shell.run("up", "--workers", "1", "--port", "0", "--detach")
    assert up.returncode == 0, up.stderr
    coordinator = json.loads(shell.run("status", "--json").stdout)["pid"]
    for again in (["up"], ["up", "--detach"]):
        second = shell.run(*again)
        assert second.returncode == 2
        assert f"pid {coordinator}, port " in second.stderr
        assert "llamaforge down" in second.stderr
    down = shell.run("down")
    assert down.returncode == 0
    assert down.stdout.endswith("stopped\n")
    assert shell.processes() == []
    assert shell.run("down").stdout == "no fleet runs here\n"


def test_a_killed_up_leaves_no_orphan_and_no_misleading_file(shell: Shell) -> None:
    up = shell.start("up", "--workers", "2", "--port", "0")
    shell.read_until(up, "worker-2 waits for a job")
    children = shell.processes()
    assert len(children) == 3
    up.kill()
    up.wait()
    shell.wait(lambda: not any(alive(pid) for pid in children), "all children are dead")
    assert (shell.root / "state/llamaforge/fleet.json").exists()  # nobody could remove it
    assert shell.run("status").returncode == 1
    again = shell.run("up", "--workers", "1", "--port", "0", "--detach")
    assert again.returncode == 0, again.stderr


def test_sigterm_stops_everything(shell: Shell) -> None:
    up = shell.start("up", "--workers", "1", "--port", "0")
    shell.read_until(up, "worker-1 waits for a job")
    up.send_signal(SIGTERM)
    up.wait(PATIENCE)
    assert shell.processes() == []
    assert not (shell.root / "state/llamaforge/fleet.json").exists()


def test_a_port_in_use_is_named_with_who_has_it(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        up = shell.run("up", "--workers", "1", "--port", str(port))
    assert up.returncode == 2
    assert f"port {port} is in use by" in up.stderr
    assert f"(pid {os.getpid()})" in up.stderr
    assert "--port" in up.stderr


def test_a_coordinator_of_its_own_is_not_stopped_by_down(shell: Shell) -> None:
    coordinator = shell.start("coordinator", "run", "--port", "0")
    shell.read_until(coordinator, "listening on")
    down = shell.run("down")
    assert down.returncode == 2
    assert f"pid {coordinator.pid}" in down.stderr
    assert f"kill {coordinator.pid}" in down.stderr
    second = shell.run("coordinator", "run", "--port", "0")
    assert second.returncode == 2
    assert f"pid {coordinator.pid}" in second.stderr
    coordinator.send_signal(SIGTERM)
    assert coordinator.wait(PATIENCE) == 0


def test_a_private_fleet_is_private_and_leaves_nothing(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", shell.environment["XDG_STATE_HOME"])
    monkeypatch.setenv("TMPDIR", str(shell.root))
    monkeypatch.setattr("tempfile.tempdir", None)
    with EmbeddedFleet(registered=False, cache_dir=shell.root / "cache") as fleet:
        children = [child.pid for child in fleet.children]
        assert [n.state for n in fleet.status().nodes] == [NodeState.READY]
        assert shell.run("status").returncode == 1  # nobody else sees it
        folder = fleet.fleet_file.parent
    assert not folder.exists()
    assert not any(alive(pid) for pid in children)


def test_a_worker_that_does_not_start_is_shown(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASTER_PORT", "of this machine's own worker")  # not for these
    with pytest.raises(UserError, match="--ranks is '5000', and not a whole number"):
        EmbeddedFleet(registered=False, ranks=5000, cache_dir=shell.root / "cache").__enter__()


def test_workers_that_take_too_long_are_shown(shell: Shell) -> None:
    fleet = EmbeddedFleet(registered=False, cache_dir=shell.root / "cache", ready_seconds=0.01)
    with pytest.raises(FleetError, match=r"within 0 s; its last lines:"):
        fleet.__enter__()
    assert fleet.children == []


def test_changes_are_said_once() -> None:
    said: list[str] = []
    changes = Changes(said.append)
    node = NodeStatus(name="a", state=NodeState.READY, since=0, cores=1, memory=1)
    job = JobStatus(
        id="j",
        state=JobState.FAILED,
        reason="rank 0 on a failed\n  its last lines",
        since=0,
        submitted=0,
        output_dir="/x",
        total_steps=1,
    )
    status = Status(coordinator="c", version="0", pid=1, started=0, nodes=(node,), jobs=(job,))
    changes.look(status)
    changes.look(status)
    assert said == ["a waits for a job", "job j is failed: rank 0 on a failed"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (59, "59 s"), (61, "1 min"), (7200, "2 h"), (2e5, "2 d")]
)
def test_time_spans(seconds: float, text: str) -> None:
    assert ago(seconds) == text
