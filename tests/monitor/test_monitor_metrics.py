from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from llamaforge.monitor.metrics import Metrics, evaluations, read, steps


def write(path: Path, upto: int) -> None:
    with Metrics(path) as metrics:
        metrics.append({"step": 0, "heldout_loss": 3.0})
        for step in range(1, upto + 1):
            metrics.append({"step": step, "loss": 2.0 / step})
            if step % 2 == 0:
                metrics.append({"step": step, "heldout_loss": 2.5 / step})


@given(trained=st.integers(0, 12), resumed=st.integers(0, 12))
def test_after_a_resume_every_step_stands_once(tmp_path_factory, trained, resumed):
    resumed = min(trained, resumed)
    path = tmp_path_factory.mktemp("job") / "metrics.jsonl"
    write(path, trained)
    with Metrics(path, after=resumed) as metrics:
        for step in range(resumed + 1, 14):
            metrics.append({"step": step, "loss": 9.0})
    lines = read(path)
    assert [line["step"] for line in steps(lines)] == list(range(1, 14))
    assert [line["step"] for line in evaluations(lines)] == list(range(0, resumed + 1, 2))


def test_a_running_writer_goes_back_when_the_job_does(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with Metrics(path) as metrics:
        for step in (1, 2, 3):
            metrics.append({"step": step, "loss": 1.0})
        metrics.rewind(1)
        metrics.append({"step": 2, "loss": 5.0})
    assert read(path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 5.0}]


def test_a_new_job_starts_with_an_empty_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, 3)
    Metrics(path).close()
    assert read(path) == []


def test_a_resume_repairs_a_torn_last_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, 3)
    path.write_bytes(path.read_bytes()[:-4])
    with Metrics(path, after=3) as metrics:
        metrics.append({"step": 4, "loss": 1.0})
    assert [line["step"] for line in steps(read(path))] == [1, 2, 4]
