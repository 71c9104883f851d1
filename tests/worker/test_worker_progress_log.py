"""Progress in the journal: the first word, the last one, and some between."""

from __future__ import annotations

import logging

import msgspec
import pytest

from llamaforge.spec.ranks import Progress
from llamaforge.worker.progress_log import EVERY, ProgressLog

WORD = Progress(job="j", generation=1, rank=3, world_size=4, nodes=2, step=0, total_steps=99)


def at(step: int, job: str = "j") -> Progress:
    return msgspec.structs.replace(WORD, step=step, job=job)


def test_first_last_and_some_between(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("llamaforge"), "propagate", True)
    caplog.set_level(logging.INFO, "llamaforge")
    now = 0.0
    told = ProgressLog(clock=lambda: now)
    told.see(None)
    told.see(at(0))
    told.see(at(5))
    now = EVERY
    told.see(at(6))
    told.see(at(7))
    told.see(None)
    told.see(at(1, job="k"))
    told.see(None)
    steps = [(record.fields["job"], int(record.fields["step"])) for record in caplog.records]
    assert steps == [("j", 0), ("j", 6), ("j", 7), ("k", 1)]
    assert caplog.records[0].fields["rank"] == "3"
