"""What a person calls a job, and the folder it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamaforge.cli.job_folder import JobName, find_job, job_names
from llamaforge.errors import UserError


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(("tiny-lora", "tiny-full")):
        folder = Path("runs") / name
        folder.mkdir(parents=True)
        (folder / "job.yaml").touch()
        os.utime(folder, (age, age))
    Path("runs/tiny-lora/adapter_config.json").touch()
    Path("runs/tiny-full/model").mkdir()
    os.utime("runs/tiny-full", (1, 1))
    return Path("runs")


def test_names_and_paths(runs: Path) -> None:
    assert find_job("tiny-lora") == runs / "tiny-lora"
    assert find_job("runs/tiny-full") == runs / "tiny-full"
    assert find_job(str(runs.absolute() / "tiny-full")).is_dir()


def test_a_wrong_name_gets_a_suggestion(runs: Path) -> None:
    with pytest.raises(UserError, match="no job 'tiny-lroa'") as caught:
        find_job("tiny-lroa")
    assert caught.value.hint == "did you mean tiny-lora?"
    with pytest.raises(UserError) as caught:
        find_job("xyzzy")
    assert "tiny-full" in caught.value.hint


def test_folders_that_are_no_finished_job(runs: Path) -> None:
    with pytest.raises(UserError, match=r"has no job\.yaml"):
        find_job(".")
    Path("runs/tiny-lora/adapter_config.json").unlink()
    with pytest.raises(UserError, match="no trained model yet"):
        find_job("tiny-lora")


def test_without_any_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert job_names() == []
    with pytest.raises(UserError) as caught:
        find_job("x")
    assert "train one first" in caught.value.hint


def test_names_complete(runs: Path) -> None:
    import click

    param = click.Argument(["job"])
    context = click.Context(click.Command("try"))
    offered = JobName().shell_complete(context, param, "tiny-l")
    assert [item.value for item in offered] == ["tiny-lora"]
    assert JobName().shell_complete(context, param, "../")[0].type == "dir"
