"""The job folder that rank 0 keeps under plain torchrun."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobs import make_job
from llamaforge.spec.job import Job
from llamaforge.train.classic.folder_report import FolderReporter


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def reporter(
    folder: Path, lines: list[str], clock: Clock, *, resumed: int | None = None
) -> FolderReporter:
    job = make_job(rows=40, rows_per_step=4)
    return FolderReporter(folder, job, resumed=resumed, tell=lines.append, clock=clock)


def step(number: int, **more: Any) -> dict[str, Any]:
    line = {"step": number, "loss": 1.5, "tokens_per_second": 99.6, "shares": {"a": 3, "b": 1}}
    return {**line, "lr": 1e-3, **more}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_events_job_proof_and_picture_are_in_the_folder(
    tmp_path: Path, clock: Clock
) -> None:
    keeper = reporter(tmp_path / "runs" / "x", [], clock)
    keeper.metric(step(1))
    keeper.note("guarantee", "same numbers", promise="same numbers")
    keeper.finish({"steps": 1, "weights_sha256": "ab"})
    keeper.close()
    folder = tmp_path / "runs" / "x"
    assert lines_of(folder / "metrics.jsonl") == [step(1)]
    (event,) = lines_of(folder / "events.jsonl")
    assert (event["kind"], event["promise"]) == ("guarantee", "same numbers")
    assert json.loads((folder / "proof.json").read_text())["weights_sha256"] == "ab"
    assert "<svg" in (folder / "loss.svg").read_text()
    job = msgspec.yaml.decode((folder / "job.yaml").read_bytes(), type=Job)
    assert job == make_job(rows=40, rows_per_step=4)
    assert not list(folder.glob("*.new"))


def test_a_resume_keeps_earlier_steps_and_drops_later_ones(tmp_path: Path, clock: Clock) -> None:
    first = reporter(tmp_path, [], clock)
    for number in (1, 2, 3):
        first.metric(step(number))
    first.close()
    second = reporter(tmp_path, [], clock, resumed=2)
    second.metric(step(3, loss=1.0))
    second.close()
    assert [line["loss"] for line in lines_of(tmp_path / "metrics.jsonl")] == [1.5, 1.5, 1.0]


def test_progress_tells_the_first_and_the_last_step_and_some_between(
    tmp_path: Path, clock: Clock
) -> None:
    lines: list[str] = []
    keeper = reporter(tmp_path, lines, clock)
    for number in range(1, 11):
        clock.now = number * 0.5
        keeper.metric(step(number))
    keeper.close()
    assert [line.split("  ")[0] for line in lines] == [
        *("step 1/10", "step 5/10", "step 9/10", "step 10/10")
    ]
    assert lines[1] == "step 5/10  loss 1.5000  100 tok/s  slices a:3 b:1  2 s left"


def test_a_step_without_trained_tokens_is_told(tmp_path: Path, clock: Clock) -> None:
    lines: list[str] = []
    keeper = reporter(tmp_path, lines, clock)
    keeper.metric(step(1, loss=None))
    keeper.close()
    assert "no trained token" in lines[0]


def test_held_out_losses_are_told(tmp_path: Path, clock: Clock) -> None:
    lines: list[str] = []
    keeper = reporter(tmp_path, lines, clock)
    keeper.metric({"step": 0, "heldout_loss": 2.25, "seconds": 1.0})
    keeper.close()
    assert lines == ["step 0: held-out loss 2.2500"]
