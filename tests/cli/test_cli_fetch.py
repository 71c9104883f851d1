"""`fetch`: a job's files arrive whole, in the right place, and nothing else is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.fake_fleet import FakeFleet, a_job
from llamaforge.cli.main import run
from llamaforge.spec.states import JobState

Output = pytest.CaptureFixture[str]
FILES = {
    "job.yaml": b"id: job-1\n",
    "adapter_model.safetensors": b"w" * 3_000_000,
    "logs/rank 0#1.txt": b"line\n",
    "checkpoints/step-4/state.safetensors": b"c" * 10,
}


@pytest.fixture
def finished(fleet: FakeFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeFleet:
    fleet.jobs["job-1"] = a_job("job-1", JobState.DONE, own_folder=True)
    fleet.files["job-1"] = dict(FILES)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return fleet


def typed(fleet: FakeFleet, *args: str) -> int:
    return run([*args, "--fleet", str(fleet.file)])


def found(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_files_come_without_checkpoints(finished: FakeFleet, capsys: Output) -> None:
    assert typed(finished, "fetch", "job") == 0
    assert "3 files, 3.0 MB, in runs/job-1" in capsys.readouterr().out
    assert found(Path("runs/job-1")) == {
        path: data for path, data in FILES.items() if not path.startswith("checkpoints/")
    }


def test_again_with_checkpoints_and_as_json(finished: FakeFleet, capsys: Output) -> None:
    assert typed(finished, "fetch", "job-1", "copy") == 0
    assert typed(finished, "fetch", "job-1", "copy", "--checkpoints", "--json") == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["type"], last["files"], last["folder"]) == ("fetched", 4, "copy")
    assert found(Path("copy")) == FILES


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ({"letter.txt": "dear"}, "copy holds letter.txt"),
        ({"job.yaml": "id: other\n"}, "copy holds the job other"),
        ({"job.yaml": "just text"}, "copy holds"),
    ],
)
def test_a_folder_with_something_else_is_refused(
    finished: FakeFleet, capsys: Output, there: dict[str, str], told: str
) -> None:
    Path("copy").mkdir()
    for name, text in there.items():
        Path("copy", name).write_text(text)
    assert typed(finished, "fetch", "job-1", "copy") == 2
    assert told in capsys.readouterr().err
    assert sorted(path.name for path in Path("copy").iterdir()) == sorted(there)


@pytest.mark.parametrize("path", ["../up", "/etc/x", "a/../../b", "checkpoints/../../c", ""])
def test_a_path_that_leads_out_is_refused(finished: FakeFleet, capsys: Output, path: str) -> None:
    finished.files["job-1"][path] = b"evil"
    assert typed(finished, "fetch", "job-1") == 1
    assert "which no job has" in capsys.readouterr().err
    assert list(Path().iterdir()) == []


def test_a_folder_that_is_here_already(finished: FakeFleet, capsys: Output) -> None:
    finished.jobs["job-1"] = a_job("job-1", output_dir=str(Path("runs/job-1").absolute()))
    assert typed(finished, "fetch", "job-1") == 2
    assert "is here already" in capsys.readouterr().err


def test_train_on_somebody_elses_coordinator_brings_the_files(
    finished: FakeFleet, capsys: Output
) -> None:
    """The coordinator keeps the job's folder itself; at the end its files are here."""
    from cli.updates import stream

    finished.write_file(uid=12345)
    finished.jobs.clear()
    finished.streams["job-1"] = stream("/var/lib/elsewhere/job-1")
    rows = [{"instruction": f"Say {n}.", "output": f"{n}"} for n in range(8)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = ("train", "--model", "tiny", "--dataset", "rows.jsonl", "--name", "job-1")
    assert typed(finished, *args) == 0
    assert found(Path("runs/job-1")).keys() == FILES.keys() - {
        "checkpoints/step-4/state.safetensors"
    }
    assert "next: llamaforge try runs/job-1" in capsys.readouterr().out
    posts = [
        body for method, path, body in finished.asked if (method, path) == ("POST", "/v1/jobs")
    ]
    assert [(body["output_dir"], body["checkpoint_dir"]) for body in posts] == [("", "")]
