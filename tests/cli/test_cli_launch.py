"""From a prepared job to its end: where it runs, and what Ctrl-C does to it."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest

from cli.updates import ended, stream
from jobs import make_job
from llamaforge.cli import launch
from llamaforge.cli.following import Outcome
from llamaforge.cli.launch import any_fleet, run_job
from llamaforge.cli.progress import JsonView, LineView
from llamaforge.errors import FleetError
from llamaforge.spec.job import JobSpec
from llamaforge.spec.states import JobState
from llamaforge.wire.carrying import Progress
from llamaforge.wire.client import FleetClient
from llamaforge.wire.fleet_file import FleetFile
from llamaforge.wire.updates import JobUpdate, Numbered


class FakeClient:
    """A fleet that tells a stream; interrupts this process while it does, if asked to."""

    def __init__(self, updates: list[JobUpdate], *, interrupts: int = 0, gone: bool = False):
        self.updates = updates
        self.interrupts = interrupts
        self.gone = gone
        self.stops: list[bool] = []
        self.submitted: dict[str, Any] = {}
        self.keeper = None
        self.keeps_folders = False
        self._stopped = asyncio.Event()

    async def __aenter__(self) -> FakeClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closed = True

    async def submit(self, job: Any, manifest: Any, store: Any, **more: Any) -> str:
        self.submitted = more
        more["on_progress"](Progress(path="model/x", sent=1, total=2))
        return "job-1"

    async def stream(self, job_id: str, position: int = 0) -> AsyncIterator[Numbered]:
        assert (job_id, position) == ("job-1", 0)
        numbered = [Numbered(number=n, update=update) for n, update in enumerate(self.updates)]
        *before, last = numbered
        for update in before:
            yield update
        for _ in range(self.interrupts):
            self._stopped.clear()
            os.kill(os.getpid(), signal.SIGINT)
            await self._stopped.wait()
        yield last

    async def stop(self, job_id: str, reason: str, *, now: bool = False) -> None:
        self.stops.append(now)
        self._stopped.set()
        if self.gone:
            raise FleetError("the coordinator is gone")


def prepared(tmp_path: Path, resume: int | None = None) -> Any:
    checkpoint = None if resume is None else Mock(step=resume)
    return Mock(
        job=make_job(model="tiny"),
        output_dir=tmp_path / "out",
        checkpoint_dir=tmp_path / "out" / "checkpoints",
        resume=checkpoint,
    )


def run(fake: FakeClient, tmp_path: Path, **more: Any) -> tuple[Outcome, str]:
    out = io.StringIO()
    view = LineView(out, clock=lambda: 0.0)
    outcome = run_job(prepared(tmp_path, **more), cast("FleetClient", fake), view)
    assert outcome is not None
    return outcome, out.getvalue()


def test_a_job_is_followed_to_its_end(tmp_path: Path) -> None:
    fake = FakeClient(stream("out"))
    outcome, shown = run(fake, tmp_path)
    assert outcome.ended.state is JobState.DONE
    assert not outcome.interrupted
    assert fake.submitted["output_dir"] == tmp_path / "out"
    assert fake.submitted["resume_step"] is None
    assert "upload: 1 B of 2 B" in shown
    assert fake.closed


def test_a_resumed_job_starts_at_its_step(tmp_path: Path) -> None:
    fake = FakeClient([ended("out")])
    outcome, _ = run(fake, tmp_path, resume=7)
    assert fake.submitted["resume_step"] == 7
    assert outcome.tally.step == 7


def test_one_interrupt_asks_for_a_checkpoint(tmp_path: Path) -> None:
    fake = FakeClient([ended("out", JobState.STOPPED)], interrupts=1)
    outcome, shown = run(fake, tmp_path)
    assert fake.stops == [False]
    assert outcome.interrupted
    assert "saving a checkpoint at the next step" in shown


def test_two_interrupts_end_it_at_once(tmp_path: Path) -> None:
    fake = FakeClient([ended("out", JobState.STOPPED)], interrupts=2)
    run(fake, tmp_path)
    assert fake.stops == [False, True]


def test_three_interrupts_leave(tmp_path: Path) -> None:
    fake = FakeClient([ended("out", JobState.STOPPED)], interrupts=3)
    with pytest.raises(KeyboardInterrupt):
        run(fake, tmp_path)
    assert fake.stops == [False, True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signals_mean_afterwards_what_they_meant_before(tmp_path: Path) -> None:
    def own(*_: object) -> None:
        """Somebody's own handler."""

    before = signal.signal(signal.SIGTERM, own)
    try:
        run(FakeClient(stream("out")), tmp_path)
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_stop_that_fails_is_said(tmp_path: Path) -> None:
    fake = FakeClient([ended("out", JobState.STOPPED)], interrupts=1, gone=True)
    _, shown = run(fake, tmp_path)
    assert "could not ask the coordinator to stop the job: the coordinator is gone" in shown


def test_a_stream_without_an_end_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="ended before the job did"):
        run(FakeClient(stream("out")[:-1]), tmp_path)


def test_json_streams_the_upload_too(tmp_path: Path) -> None:
    out = io.StringIO()
    run_job(prepared(tmp_path), cast("FleetClient", FakeClient(stream("x"))), JsonView(out))
    assert out.getvalue().splitlines()[0] == '{"type":"upload","done":1,"total":2}'


def test_a_running_fleet_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    running = FleetFile(host="127.0.0.1", port=29400, pid=1)
    monkeypatch.setattr(launch.fleet_file, "search", lambda: running)
    said: list[str] = []
    with any_fleet(said.append) as client:
        assert client.fleet == running
    assert said == ["using the fleet at 127.0.0.1:29400"]


def test_without_a_fleet_one_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    embedded = Mock()
    embedded.return_value.__enter__ = Mock(return_value=Mock(client=lambda: "client"))
    embedded.return_value.__exit__ = Mock(return_value=None)
    monkeypatch.setattr(launch, "EmbeddedFleet", embedded)
    monkeypatch.setattr(launch.fleet_file, "search", lambda: None)
    said: list[str] = []
    with any_fleet(said.append, workers=2) as client:
        assert cast("Any", client) == "client"
    embedded.assert_called_once_with(workers=2, registered=False)
    assert said == ["no fleet runs: starting 2 workers on this machine for this job"]


def test_what_a_job_reads_is_named_by_whole_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").touch()
    Path("base").mkdir()
    spec = JobSpec(model="base", dataset="rows.jsonl", heldout="0.1", output_dir="out")
    whole = launch.with_whole_paths(spec)
    assert (whole.model, whole.dataset) == (str(tmp_path / "base"), str(tmp_path / "rows.jsonl"))
    assert (whole.heldout, whole.output_dir) == ("0.1", "out")
    assert launch.with_whole_paths(JobSpec(model="tiny", dataset="rows.jsonl")).model == "tiny"
