"""Job files: YAML and TOML mean the same, mistakes carry the line, flags win."""

from __future__ import annotations

import textwrap
from pathlib import Path

import msgspec
import pytest

from llamaforge.errors import SpecError
from llamaforge.spec.jobfile import merge, read_job_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text('{"text": "x"}\n')
    return tmp_path


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


YAML = """\
    model: tiny
    dataset: rows.jsonl
    learning-rate: 1e-4
    name: no
    fields: {instruction: question}
    lora_targets: [q_proj, v_proj]
    max_steps:
    """
TOML = """\
    model = "tiny"
    dataset = "rows.jsonl"
    learning-rate = 1e-4
    name = "no"
    lora_targets = ["q_proj", "v_proj"]
    [fields]
    instruction = "question"
    """


def test_yaml_and_toml_mean_the_same(folder: Path) -> None:
    specs = [
        merge(read_job_file(write(folder, name, text)), {})
        for name, text in (("job.yaml", YAML), ("job.toml", TOML))
    ]
    assert specs[0] == specs[1]
    assert specs[0].name == "no"
    assert specs[0].learning_rate == 1e-4
    assert specs[0].max_steps is None


def test_paths_are_relative_to_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = folder / "inner"
    inner.mkdir()
    (folder / "model").mkdir()
    path = write(
        inner,
        "job.yaml",
        """\
        model: ../model
        dataset: ../rows.jsonl
        heldout: 0.1
        output_dir: out
        """,
    )
    monkeypatch.chdir(folder)
    spec = merge(read_job_file(path.relative_to(folder)), {})
    assert (Path(spec.dataset), spec.heldout) == (Path("inner/../rows.jsonl"), "0.1")
    assert (Path(spec.model), spec.output_dir) == (Path("inner/../model"), "inner/out")


def test_flags_win_over_the_file(folder: Path) -> None:
    path = write(folder, "job.yaml", "model: tiny\ndataset: rows.jsonl\nepochs: nonsense\n")
    assert merge(read_job_file(path), {"epochs": "2"}).epochs == 2


def test_mistakes_carry_line_or_flag(folder: Path) -> None:
    text = "model: tiny\ndataset: rows.jsonl\nepochs: x\nwarmpu: 0.1\n"
    path = write(folder, "job.yaml", text)
    with pytest.raises(SpecError) as caught:
        merge(read_job_file(path), {"lora_r": "y"})
    told = caught.value.message
    assert f"{path}:3: epochs: 'x'" in told
    assert f"{path}:4: warmpu: no such option; did you mean warmup?" in told
    assert "--lora-r: 'y'" in told


def test_toml_lines(folder: Path) -> None:
    text = 'model = "tiny"\ndataset = "rows.jsonl"\n\nepochs = "x"\n[fields]\na = 1\n[lr]\n'
    path = write(folder, "job.toml", text)
    with pytest.raises(SpecError) as caught:
        merge(read_job_file(path), {})
    assert f"{path}:4: epochs" in caught.value.message
    assert f"{path}:7: lr: no such option; did you mean learning_rate?" in caught.value.message


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.yaml", "model: tiny\nmodel: other\n", "a.yaml:2: model stands twice; first in line 1"),
        ("a.yaml", "model: [1\n", "not valid YAML"),
        ("a.yaml", "- a\n- b\n", "a job file is a mapping"),
        ("a.yaml", "!!python/object:os.system {}\n", "is missing"),
        ("a.toml", "model = \n", "not valid TOML"),
        ("a.txt", "x", "not .yaml, .yml or .toml"),
        ("a.yaml", "", "model: is missing"),
    ],
)
def test_broken_files_are_named(folder: Path, name: str, text: str, told: str) -> None:
    path = write(folder, name, text)
    with pytest.raises(SpecError) as caught:
        merge(read_job_file(path), {})
    assert told in caught.value.message


def test_missing_and_binary_files(folder: Path) -> None:
    with pytest.raises(SpecError, match="No such file"):
        read_job_file(folder / "none.yaml")
    with pytest.raises(SpecError, match="Is a directory"):
        read_job_file(folder)
    (folder / "b.yaml").write_bytes(b"model: \xff\n")
    with pytest.raises(SpecError, match="not UTF-8"):
        read_job_file(folder / "b.yaml")


def test_anchors_and_merge_keys(folder: Path) -> None:
    text = "<<: {epochs: 4}\nmodel: tiny\ndataset: rows.jsonl\n"
    assert merge(read_job_file(write(folder, "job.yaml", text)), {}).epochs == 4


def test_the_resolved_file_of_a_job_is_a_job_file(folder: Path) -> None:
    spec = merge(read_job_file(write(folder, "job.yaml", YAML)), {})
    resolved = {"id": "x-1", "spec": msgspec.to_builtins(spec), "model_digest": "0"}
    path = folder / "runs" / "x" / "job.yaml"
    path.parent.mkdir(parents=True)
    path.write_bytes(msgspec.yaml.encode(resolved))
    assert merge(read_job_file(path), {}) == spec
