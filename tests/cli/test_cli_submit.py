"""`submit` and `train --detach`: one job, whatever happens to the coordinator meanwhile."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from cli.fake_fleet import FakeFleet, a_job
from llamaforge.cli.main import run
from llamaforge.spec.states import JobState

Output = pytest.CaptureFixture[str]


@pytest.fixture
def asked(fleet: FakeFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command line without its verb, in a folder with rows."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    rows = [{"instruction": f"Say {n}.", "output": f"{n}"} for n in range(8)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["--model", "tiny", "--dataset", "rows.jsonl", "--fleet", str(fleet.file)]


def bodies(fleet: FakeFleet) -> list[dict[str, object]]:
    return [body for method, path, body in fleet.asked if (method, path) == ("POST", "/v1/jobs")]


@pytest.mark.parametrize("verb", [["submit"], ["train", "--detach"]])
def test_the_id_stands_alone_on_standard_output(
    fleet: FakeFleet, asked: list[str], capsys: Output, verb: list[str]
) -> None:
    wishes = ["--min-nodes", "2", "--labels", "ssd,fast", "--min-memory", "1.5", "--priority", "7"]
    assert run([*verb, *asked, *wishes, "--name", "mine"]) == 0
    said = capsys.readouterr()
    assert said.out == "mine\n"
    assert "llamaforge attach mine" in said.err
    (body,) = bodies(fleet)
    wishes_sent = body["wishes"]
    assert isinstance(wishes_sent, dict)
    for key, value in {
        "min_nodes": 2,
        "labels": ["ssd", "fast"],
        "min_memory": 3 << 29,
        "priority": 7,
        "on_node_loss": "continue",
    }.items():
        assert wishes_sent[key] == value
    assert body["output_dir"] == str(Path("runs/mine").absolute())


def test_submit_as_json(fleet: FakeFleet, asked: list[str], capsys: Output) -> None:
    assert run(["submit", *asked, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"type": "submitted", "job": next(iter(fleet.jobs))}


def test_an_answer_that_is_lost_makes_no_second_job(
    fleet: FakeFleet, asked: list[str], capsys: Output
) -> None:
    fleet.drop_next_submission = True
    assert run(["submit", *asked]) == 0
    first, second = bodies(fleet)
    assert first["key"] == second["key"]
    assert len(str(first["key"])) >= 32
    assert list(fleet.jobs) == [capsys.readouterr().out.strip()]


def test_a_coordinator_that_is_started_again_gets_the_job(
    fleet: FakeFleet, asked: list[str], capsys: Output
) -> None:
    """It goes away after it has said which blobs it lacks, and is back a second later."""
    missing = threading.Event()

    def restart() -> None:
        while not any(path == "/v1/missing" for _, path, _ in fleet.asked):
            time.sleep(0.001)
        fleet.stop()
        missing.set()
        time.sleep(0.7)
        fleet.start()

    thread = threading.Thread(target=restart, daemon=True)
    thread.start()
    assert run(["submit", *asked]) == 0
    thread.join(10)
    assert missing.is_set()
    assert len(fleet.jobs) == 1


def test_every_submission_has_a_key_of_its_own(fleet: FakeFleet, asked: list[str]) -> None:
    assert run(["submit", *asked]) == 0
    assert run(["submit", *asked]) == 0
    assert len(fleet.jobs) == len(fleet.keys) == 2


@pytest.mark.parametrize("state", [JobState.STOPPED, JobState.FAILED])
def test_auto_resume_where_the_coordinator_keeps_the_folders(
    fleet: FakeFleet, asked: list[str], capsys: Output, state: JobState
) -> None:
    fleet.write_file(uid=12345)
    fleet.jobs["mine"] = a_job("mine", state)
    assert run(["submit", *asked, "--auto-resume", "--name", "mine"]) == 0
    assert capsys.readouterr().out == "mine\n"
    assert fleet.jobs["mine"].state is JobState.QUEUED
    assert bodies(fleet) == []
    assert run(["submit", *asked, "--auto-resume"]) == 2
    assert "--auto-resume needs --name here" in capsys.readouterr().err


def test_auto_resume_of_a_job_that_was_never_there_submits_it(
    fleet: FakeFleet, asked: list[str]
) -> None:
    fleet.write_file(uid=12345)
    assert run(["submit", *asked, "--auto-resume", "--name", "new"]) == 0
    (body,) = bodies(fleet)
    assert body["output_dir"] == ""
