"""Command line options: made from the table, grouped, and read into a `JobSpec`."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamaforge.cli.main import run
from llamaforge.cli.options import parse
from llamaforge.errors import UserError
from llamaforge.spec.job import GROUPS
from llamaforge.spec.options import options

Output = pytest.CaptureFixture[str]


@pytest.fixture
def line(tmp_path: Path) -> list[str]:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "x"}\n')
    return ["--model", "tiny", "--dataset", str(rows)]


def test_short_help_has_groups_and_no_advanced_options(capsys: Output) -> None:
    assert run(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    words = shown.replace("[no-]", "").split()
    for group in GROUPS:
        assert f"{group.capitalize()}:" in shown
    for option in options().values():
        assert (option.flag in words) is not option.advanced
    assert len(shown.splitlines()) < 80


def test_help_all_has_every_option(capsys: Output) -> None:
    assert run(["train", "--help-all"]) == 0
    words = capsys.readouterr().out.replace("[no-]", "").split()
    assert all(option.flag in words for option in options().values())


def test_short_help_after_help_all_is_short_again(capsys: Output) -> None:
    run(["train", "--help-all"])
    capsys.readouterr()
    run(["train", "--help"])
    assert "--adam-beta1" not in capsys.readouterr().out


def test_parse_reads_every_kind(line: list[str]) -> None:
    spec = parse(
        [
            *line,
            *("--epochs", "2", "--batch_size", "4", "--rslora", "--no-auto-resume"),
            *("--lora-targets", "q_proj,v_proj", "--fields", "instruction=a,output=b"),
            *("--sample-prompts", "Hello, you", "--sample-prompts", "Bye"),
        ],
        prog="distributed_train.py",
    )
    assert (spec.epochs, spec.batch_size, spec.rslora, spec.auto_resume) == (2, 4, True, False)
    assert spec.lora_targets == ("q_proj", "v_proj")
    assert spec.fields == {"instruction": "a", "output": "b"}
    assert spec.sample_prompts == ("Hello, you", "Bye")


def test_parse_takes_a_job_file_and_flags_win(line: list[str], tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text('model = "tiny"\ndataset = "rows.jsonl"\nepochs = 5\nseed = 7\n')
    spec = parse([str(file), "--epochs", "2"], prog="distributed_train.py")
    assert (spec.epochs, spec.seed) == (2, 7)


@pytest.mark.parametrize("wrong", [["--epcohs", "1"], ["--epochs", "x"], ["none.yaml"]])
def test_parse_raises_errors_for_people(line: list[str], wrong: list[str]) -> None:
    with pytest.raises(UserError):
        parse([*line, *wrong], prog="distributed_train.py")


def test_parse_prints_help_and_leaves(capsys: Output) -> None:
    with pytest.raises(SystemExit) as left:
        parse(["--help"], prog="distributed_train.py")
    assert left.value.code == 0
    assert "Usage: distributed_train.py" in capsys.readouterr().out
