"""A peer's progress as its worker reads it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from llamaforge.spec.ranks import Progress
from llamaforge.train.classic import progress_file
from llamaforge.train.classic.progress_file import ProgressFile


def word(step: int) -> Progress:
    return Progress(job="j", generation=1, rank=1, world_size=2, nodes=2, step=step, total_steps=9)


def test_first_and_last_step_are_written_and_others_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(progress_file.time, "monotonic", lambda: now)
    path = tmp_path / "progress-0.json"
    reporter = ProgressFile(path)

    def written() -> int:
        return msgspec.json.decode(path.read_bytes(), type=Progress).step

    reporter.progress(word(0))
    reporter.progress(word(1))
    assert written() == 0
    now += progress_file.EVERY
    reporter.progress(word(2))
    assert written() == 2
    reporter.progress(word(9))
    assert written() == 9
    assert list(tmp_path.iterdir()) == [path]
