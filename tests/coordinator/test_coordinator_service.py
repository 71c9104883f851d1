"""What the coordinator tells its service manager."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamaforge.coordinator.configuration import Configuration
from llamaforge.coordinator.service import Service, line_of
from llamaforge.spec.fleet import CoordinatorSettings
from llamaforge.spec.states import JobState, NodeState
from llamaforge.systemd.notify import Notify
from llamaforge.wire.api import JobStatus, NodeStatus, Status


class Heard(Notify):
    """A service manager that remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def _send(self, message: str) -> None:
        self.said.append(message.split("\n")[0])


def node(state: NodeState) -> NodeStatus:
    return NodeStatus(name="n", state=state, since=0.0, cores=1, memory=1)


def job(state: JobState) -> JobStatus:
    return JobStatus(id="j", state=state, since=0.0, submitted=0.0, output_dir="/o", total_steps=1)


def fleet(*states: NodeState | JobState) -> Status:
    return Status(
        coordinator="c",
        version="1",
        pid=1,
        started=0.0,
        nodes=tuple(node(state) for state in states if isinstance(state, NodeState)),
        jobs=tuple(job(state) for state in states if isinstance(state, JobState)),
    )


def test_the_line_counts_what_there_is() -> None:
    assert line_of(fleet()) == "0 nodes connected; no job"
    assert line_of(fleet(NodeState.READY, JobState.DONE)) == "1 node connected (1 ready); no job"
    everything = fleet(
        *(NodeState.READY, NodeState.READY, NodeState.BUSY, NodeState.LOST),
        *(JobState.RUNNING, JobState.STARTING, JobState.QUEUED, JobState.PAUSED, JobState.FAILED),
    )
    assert line_of(everything) == (
        "3 nodes connected (2 ready, 1 busy, 1 lost); 2 jobs running, 1 queued, 1 paused"
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "coordinator.conf"
    path.write_text("LLAMAFORGE_NODE_GRACE=5\n")
    return path


@pytest.fixture
def kept_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


def make(file: Path, heard: Heard, applied: list[CoordinatorSettings], **more: object) -> Service:
    return Service(
        Configuration({}, {}, str(file)),
        heard,
        file.parent,
        status=lambda: fleet(NodeState.READY),
        apply=applied.append,
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.usefixtures("kept_signals")
def test_it_says_ready_feeds_the_watchdog_and_reloads_on_sighup(file: Path) -> None:
    heard, applied = Heard(), list[CoordinatorSettings]()

    async def live() -> None:
        service = make(file, heard, applied)
        task = asyncio.ensure_future(service.run())
        await asyncio.sleep(0)
        file.write_text("LLAMAFORGE_NODE_GRACE=7\n")
        os.kill(os.getpid(), signal.SIGHUP)
        while not applied:
            await asyncio.sleep(0.01)
        service.ending("told to by SIGTERM")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(live(), 10))
    assert heard.said[:3] == ["READY=1", "STATUS=1 node connected (1 ready); no job", "WATCHDOG=1"]
    assert heard.said[3:5] == ["RELOADING=1", "READY=1"]
    assert applied[0].node_grace == 7.0
    assert heard.said[-2] == "STOPPING=1"
    assert heard.said[-1] == "STATUS=ending: told to by SIGTERM; running jobs go on"


def test_wrong_settings_change_nothing(file: Path) -> None:
    heard, applied = Heard(), list[CoordinatorSettings]()
    service = make(file, heard, applied)
    file.write_text("LLAMAFORGE_NODE_GRACE=soon\n")
    service.reload()
    assert applied == []
    assert heard.said == ["RELOADING=1", "READY=1"]


def test_trouble_stands_first(file: Path) -> None:
    service = make(file, Heard(), [], trouble=lambda: "the disk is full")
    assert service.line == "the disk is full; 1 node connected (1 ready); no job"


def test_an_orderly_end_is_no_crash(file: Path) -> None:
    for _ in range(9):
        service = make(file, Heard(), [])
        asyncio.run(asyncio.wait_for(service.pause(), 1))
        service.ending("told to")
    assert not (file.parent / "starts.json").exists()


def test_crashes_cost_a_pause_in_which_systemd_is_told(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamaforge.systemd.restarts.FIRST", 0.05)
    heard = Heard()
    for _ in range(3):
        asyncio.run(make(file, Heard(), []).pause())
    asyncio.run(make(file, heard, []).pause())
    assert heard.said[0] == "READY=1"
    assert heard.said[1].startswith("STATUS=ended without order 3 times")
    assert "WATCHDOG=1" in heard.said
