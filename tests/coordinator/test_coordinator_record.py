"""A job's record on the coordinator: it has an end, whatever its disk says."""

from __future__ import annotations

import errno
from pathlib import Path

import msgspec
import pytest
from desk import keeping

from jobs import make_job
from llamaforge.bundle.manifest import Manifest
from llamaforge.coordinator.leading.outcome import Outcome
from llamaforge.coordinator.ledger import Ledger
from llamaforge.coordinator.record import JobRecord
from llamaforge.spec.states import JobState
from llamaforge.wire.api import Submission
from llamaforge.wire.updates import Ended, Numbered


async def test_a_disk_that_refuses_the_end_is_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger.open(tmp_path / "ledger.db")
    submission = Submission(
        job=make_job(),
        manifest=Manifest(),
        output_dir=str(tmp_path / "job"),
        checkpoint_dir=str(tmp_path / "job" / "checkpoints"),
    )
    record = JobRecord(submission, keeping(tmp_path, ledger))
    record.begin()
    record.enter(JobState.STARTING)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(record.folder, "event", full)
    record.end(Outcome(state=JobState.DONE, reason="finished", proof={"steps": 1}))
    *_, last = [line async for line in record.stream.read(0, beat=30)]
    ended = msgspec.json.decode(last, type=Numbered).update
    assert isinstance(ended, Ended)
    assert ended.state is record.state is JobState.FAILED
    ledger.close()
    assert f"could not be written to {tmp_path / 'job'}: No space left" in ended.reason
