"""`jobs`, `status JOB`, `cancel`, `resume` and `submit` as a person types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.fake_fleet import FakeFleet, a_job, a_node
from llamaforge.cli.main import run
from llamaforge.spec.states import JobState

Output = pytest.CaptureFixture[str]
ROWS = Path(__file__).parents[2] / "examples" / "datasets" / "alpaca_1k.jsonl"


@pytest.fixture
def three(fleet: FakeFleet) -> FakeFleet:
    """A fleet with a job that runs, one that waits, and one that is done."""
    for job in (
        a_job("old-1111", JobState.DONE, step=4, submitter="local:anna"),
        a_job("tiny-2222", step=2, nodes=("a", "b"), submitter="local:anna", generation=3),
        a_job("tiny-3333", JobState.QUEUED, reason="waits behind tiny-2222\nand more"),
    ):
        fleet.jobs[job.id] = job
    return fleet


def typed(fleet: FakeFleet, *args: str) -> int:
    return run([*args, "--fleet", str(fleet.file)])


def test_jobs_that_run_or_wait(three: FakeFleet, capsys: Output) -> None:
    assert typed(three, "jobs") == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["job", "state", "step", "nodes", "who", "since", "reason"]
    assert first.split()[:5] == ["tiny-2222", "running", "2/4", "a,b", "local:anna"]
    assert second.endswith("waits behind tiny-2222")


def test_all_jobs_as_json(three: FakeFleet, capsys: Output) -> None:
    assert typed(three, "jobs", "--all", "--json") == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [job["id"] for job in said] == ["old-1111", "tiny-2222", "tiny-3333"]


def test_no_jobs_are_said(fleet: FakeFleet, capsys: Output) -> None:
    assert typed(fleet, "jobs") == 0
    assert "no job waits or runs" in capsys.readouterr().out
    assert typed(fleet, "jobs", "--all", "--json") == 0
    assert capsys.readouterr().out == ""


def test_status_of_one_job_tells_all(three: FakeFleet, capsys: Output) -> None:
    assert typed(three, "status", "2222") == 0
    shown = capsys.readouterr().out
    for expected in ("tiny-2222", "2 of 4", "a, b", "local:anna", "/runs/tiny-2222", "attach"):
        assert expected in shown
    assert typed(three, "status", "3333") == 0
    assert "and more" in capsys.readouterr().out


def test_status_of_the_fleet(three: FakeFleet, capsys: Output) -> None:
    three.nodes = [a_node("box1"), a_node("box2")]
    assert typed(three, "status") == 0
    shown = capsys.readouterr().out
    assert "box2" in shown
    assert "tiny-3333" in shown


def test_cancel_promises_no_checkpoint_of_a_script(fleet: FakeFleet, capsys: Output) -> None:
    fleet.jobs["hello-1"] = a_job("hello-1", kind="run", total_steps=0)
    assert typed(fleet, "cancel", "hello-1", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "SIGTERM" in shown
    assert "checkpoint" not in shown


def test_cancel_asks_for_each_job_once(three: FakeFleet, capsys: Output) -> None:
    assert typed(three, "cancel", "2222", "tiny-2222", "3333", "--reason", "enough") == 0
    shown = capsys.readouterr().out
    assert "job tiny-2222 saves a checkpoint at its next step and stops" in shown
    assert "job tiny-3333 leaves the queue" in shown
    posts = [(path, body) for method, path, body in three.asked if method == "POST"]
    body = {"reason": "enough", "now": False}
    assert posts == [("/v1/jobs/tiny-2222/stop", body), ("/v1/jobs/tiny-3333/stop", body)]


@pytest.mark.parametrize("wrong", ["old-1111", "none"])
def test_one_wrong_name_cancels_nothing(three: FakeFleet, capsys: Output, wrong: str) -> None:
    assert typed(three, "cancel", "tiny-2222", wrong) == 2
    assert wrong in capsys.readouterr().err
    assert [method for method, *_ in three.asked if method == "POST"] == []


def test_a_dry_run_of_cancel_changes_nothing(three: FakeFleet, capsys: Output) -> None:
    assert typed(three, "cancel", "2222", "--now", "--dry-run") == 0
    assert capsys.readouterr().out == "dry run: job tiny-2222 ends at once, at step 2\n"
    assert [method for method, *_ in three.asked if method == "POST"] == []


def test_resume_goes_on_with_what_has_ended(three: FakeFleet, capsys: Output) -> None:
    three.jobs["stopped"] = a_job("stopped", JobState.STOPPED)
    assert typed(three, "resume", "stop") == 0
    assert "is queued again" in capsys.readouterr().out
    assert three.jobs["stopped"].state is JobState.QUEUED


@pytest.mark.parametrize(
    ("job", "told"), [("tiny-2222", "has not ended: it is running"), ("old-1111", "is done")]
)
def test_what_can_not_be_resumed(three: FakeFleet, capsys: Output, job: str, told: str) -> None:
    assert typed(three, "resume", job) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "args",
    [
        ["jobs"],
        ["logs", "x"],
        ["attach", "x"],
        ["cancel", "x"],
        ["resume", "x"],
        ["fetch", "x"],
        ["events"],
        ["nodes"],
        ["drain", "x"],
        ["submit", "--model", "tiny", "--dataset", str(ROWS)],
    ],
)
def test_without_a_fleet_each_verb_says_how_to_get_one(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch, args: list[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert run(args) == 1
    said = capsys.readouterr()
    assert "no fleet runs here" in said.err
    assert "llamaforge up" in said.err
    assert said.out == ""


def test_a_fleet_file_that_is_none_is_named(tmp_path: Path, capsys: Output) -> None:
    assert run(["jobs", "--fleet", str(tmp_path / "none.json")]) == 2
    assert "none.json': there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["logs", "attach", "cancel", "resume", "fetch", "status"])
def test_an_unknown_job_is_a_mistake_of_the_person(
    three: FakeFleet, capsys: Output, verb: str
) -> None:
    assert typed(three, verb, "tiny-2223") == 2
    said = capsys.readouterr().err
    assert "no job 'tiny-2223' on this fleet" in said
    assert "did you mean tiny-2222?" in said


def test_a_job_that_was_meant_by_too_little(three: FakeFleet, capsys: Output) -> None:
    assert typed(three, "logs", "tiny") == 2
    assert "tiny-2222, tiny-3333" in capsys.readouterr().err
