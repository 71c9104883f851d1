"""The end of a job: what is said, which files, and a command line that means the same spec."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.updates import ended, step, stream
from jobs import make_job
from llamaforge.cli.following import Outcome, raise_if_failed
from llamaforge.cli.options import parse
from llamaforge.cli.summary import command_line, files, lines, summary
from llamaforge.cli.tally import Tally
from llamaforge.errors import JobFailed, UserError
from llamaforge.spec.job import JobSpec
from llamaforge.spec.states import JobState
from llamaforge.wire.updates import JobUpdate, MetricLine


def outcome(updates: list[JobUpdate], *, interrupted: bool = False) -> Outcome:
    tally = Tally(4, clock=lambda: 0.0)
    for update in updates:
        tally.take(update)
    assert tally.ended is not None
    return Outcome(
        job_id="test-job",
        tally=tally,
        ended=tally.ended,
        interrupted=interrupted,
        folder=Path(tally.ended.output_dir),
        spec=make_job(model="tiny").spec,
    )


def test_a_finished_job_says_everything(tmp_path: Path) -> None:
    for name in ("adapter_model.safetensors", "metrics.jsonl", "loss.svg", "proof.json"):
        (tmp_path / name).touch()
    said = summary(outcome(stream(str(tmp_path))))
    text = "\n".join(lines(said))
    for expected in (
        "done (test-job, step 4/4)",
        "same numbers: all 3 ranks agree on a canary slice",
        "2.5000 -> 1.2500",
        "200 tok/s",
        "big 75 %, small 25 %",
        str(tmp_path / "adapter_model.safetensors"),
        str(tmp_path / "loss.svg"),
        f"next: llamaforge try {tmp_path}",
    ):
        assert expected in text
    assert set(said["files"]) == {"adapter", "metrics", "plot", "proof"}


def test_a_stopped_job_says_how_to_go_on(tmp_path: Path) -> None:
    updates = [*stream(str(tmp_path))[:-1], ended(str(tmp_path), JobState.STOPPED)]
    said = summary(outcome(updates))
    assert said["next"] == "llamaforge train --model tiny --dataset data.jsonl --auto-resume"
    assert lines(said)[-1].startswith("continue with: llamaforge train")


def test_a_loss_before_training_is_no_loss_after(tmp_path: Path) -> None:
    start = MetricLine(line={"step": 0, "heldout_loss": 2.5, "seconds": 1.0})
    said = summary(outcome([start, step(1), ended(str(tmp_path), JobState.STOPPED)]))
    assert (said["heldout_loss_before"], said["heldout_loss_after"]) == (2.5, None)
    assert "held-out" not in "\n".join(lines(said))


@pytest.mark.parametrize(("fixable", "kind"), [(True, UserError), (False, JobFailed)])
def test_a_failed_job_is_an_error(fixable: bool, kind: type[Exception]) -> None:
    end = ended("x", JobState.FAILED, reason="rank 1 on big: out of memory", user_error=fixable)
    with pytest.raises(kind, match="job test-job failed: rank 1 on big: out of memory"):
        raise_if_failed(outcome([end]))


def test_sharded_weights_count_as_files(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors.index.json").touch()
    assert list(files(tmp_path)) == ["model"]


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)
values: dict[str, st.SearchStrategy[Any]] = {
    "epochs": st.integers(1, 9),
    "learning_rate": st.none() | st.floats(1e-8, 0.5),
    "rslora": st.booleans(),
    "name": st.none() | st.from_regex(r"[a-z][a-z0-9.]{0,9}", fullmatch=True),
    "lora_targets": st.lists(st.sampled_from(["q_proj", "v_proj", "o"]), min_size=1).map(tuple),
    "sample_prompts": st.lists(WORDS, max_size=2).map(tuple),
    "fields": st.dictionaries(st.sampled_from("ab"), st.sampled_from("cd")),
    "schedule": st.sampled_from(["cosine", "linear"]),
}


@given(st.fixed_dictionaries({}, optional=values))
def test_the_command_line_means_the_same_spec(given_values: dict[str, Any]) -> None:
    spec = JobSpec(model="tiny", dataset=__file__, **given_values)
    program, verb, *arguments = shlex.split(command_line(spec))
    assert (program, verb) == ("llamaforge", "train")
    assert parse(arguments, prog="llamaforge train") == spec
