"""A job's folder: the files that people and other parts read."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from jobs import make_job
from llamaforge.errors import UserError
from llamaforge.monitor import metrics
from llamaforge.monitor.folder import JobFolder, write_whole
from llamaforge.spec.job import Job

LINES = [
    {"step": 0, "heldout_loss": 4.0},
    {"step": 1, "loss": 3.5, "lr": 1e-3, "grad_norm": 1.0, "tokens_per_second": 10.0},
    {"step": 2, "loss": None, "lr": 1e-3, "grad_norm": 0.0, "tokens_per_second": 0.0},
    {"step": 3, "loss": 3.1, "lr": 1e-3, "grad_norm": 1.0, "tokens_per_second": 11.0},
]


def fill(path: Path, *, resumed: int | None = None, tensorboard: bool = False) -> None:
    folder = JobFolder(path, make_job(tensorboard=tensorboard), resumed=resumed)
    for line in LINES[0 if resumed is None else resumed + 1 :]:
        folder.metric(line)
    folder.event("note", "hello", step=3)
    folder.proof({"steps": 3})
    folder.close()
    folder.draw()


def test_all_files_stand_and_can_be_read(tmp_path: Path) -> None:
    fill(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"job.yaml", "metrics.jsonl", "events.jsonl", "proof.json", "loss.svg"}
    assert msgspec.yaml.decode((tmp_path / "job.yaml").read_bytes(), type=Job) == make_job()
    assert metrics.read(tmp_path / "metrics.jsonl") == LINES
    assert "<svg" in (tmp_path / "loss.svg").read_text()


def test_going_on_repeats_no_step_and_replaces_the_proof(tmp_path: Path) -> None:
    fill(tmp_path)
    write_whole(tmp_path / "proof.json", b'{"steps": 1}')
    fill(tmp_path, resumed=1)
    assert metrics.read(tmp_path / "metrics.jsonl") == LINES
    assert msgspec.json.decode((tmp_path / "proof.json").read_bytes()) == {"steps": 3}


def test_going_back_in_the_middle_drops_what_comes_again(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path, make_job(), resumed=None)
    for after, missing in ((1, LINES[2:]), (None, LINES)):  # to a checkpoint, to the very start
        for line in LINES if after is not None else ():
            folder.metric(line)
        folder.rewind(after)
        for line in missing:
            folder.metric(line)
        assert metrics.read(tmp_path / "metrics.jsonl") == LINES
    folder.close()


def test_tensorboard_forgets_what_comes_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="comes with the tensorboard extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = JobFolder(tmp_path, make_job(tensorboard=True), resumed=None)
    for line in LINES:
        folder.metric(line)
    folder.rewind(2)
    folder.metric({**LINES[3], "loss": 3.0})
    folder.close()
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in board.Scalars("train/loss")] == [(1, 3.5), (3, 3.0)]


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="comes with the tensorboard extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fill(tmp_path, tensorboard=True)
    fill(tmp_path, resumed=1, tensorboard=True)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    losses = [(event.step, event.value) for event in board.Scalars("train/loss")]
    assert losses == [(1, 3.5), (3, pytest.approx(3.1))], "each step once, also after going on"
    assert [event.value for event in board.Scalars("heldout/loss")] == [4.0]


def test_two_jobs_never_write_into_one_folder(tmp_path: Path) -> None:
    first = JobFolder(tmp_path, make_job(), resumed=None)
    other = msgspec.structs.replace(make_job(), id="other")
    with pytest.raises(UserError, match="test-job writes into it now"):
        JobFolder(tmp_path, other, resumed=None)
    with pytest.raises(UserError, match="test-job writes into it now"):
        JobFolder(tmp_path, make_job(), resumed=None)
    first.close()
    first.close()  # harmless
    with pytest.raises(UserError, match="it holds the job test-job"):
        JobFolder(tmp_path, other, resumed=None)
    JobFolder(tmp_path, make_job(), resumed=2).close()
