import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import tiny_tokenizers as tiny
from llamaforge.data.rows import Chat, Completion, Turn, encode
from llamaforge.data.scan import Drop, ScanReport
from llamaforge.spec.job import Job, JobSpec
from llamaforge.train.preview import Preview, Trouble, main, segments
from llamaforge.train.rows.tokens import Encoder

ROWS = 10


def row(number: int) -> Chat:
    turns = (Turn(role="user", content=f"{number}?"), Turn(role="assistant", content="日本 yes"))
    return Chat(line=number + 1, turns=turns)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "data").mkdir(parents=True)
    tiny.qwen().save_pretrained(folder / "model")
    lines = b"".join(encode(row(number)) for number in range(ROWS))
    (folder / "data" / "train.jsonl").write_bytes(lines)
    return folder


@pytest.fixture
def job(tmp_path: Path) -> Path:
    spec = JobSpec(model="tiny", dataset="rows.jsonl", max_length=64, slice_tokens=64)
    resolved = Job(
        id="j",
        spec=spec,
        rows=ROWS,
        heldout_rows=0,
        rows_per_step=4,
        steps_per_epoch=3,
        total_steps=3,
        learning_rate=1e-4,
        threads=1,
        data_digest="",
        model_digest="",
        version="0",
    )
    path = tmp_path / "job.json"
    path.write_bytes(msgspec.json.encode(resolved))
    return path


def run(bundle: Path, job: Path, *more: str) -> list[str]:
    return ["--bundle", str(bundle), "--job", str(job), *more]


def test_a_preview_is_one_json_object_on_standard_output(bundle: Path, job: Path) -> None:
    command = [sys.executable, "-m", "llamaforge.train.preview", *run(bundle, job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = msgspec.json.decode(done.stdout, type=Preview)
    assert done.stdout.count("\n") == 1
    assert [(shown.line, shown.truncated) for shown in said.rows] == [(1, False), (2, False)]
    assert [(part.text, part.trained) for part in said.rows[0].segments] == [
        ("<|im_start|>user\n0?<|im_end|>\n<|im_start|>assistant\n", False),
        ("日本 yes<|im_end|>", True),
    ]
    assert said.lengths.rows == ROWS
    assert said.lengths.total == said.lint.tokens
    assert not said.lengths.estimated
    assert [len(step.rows) for step in said.steps] == [4, 4, 2]
    assert sorted(number for step in said.steps for number in step.rows) == list(range(ROWS))
    for step in said.steps:
        assert sorted(p for piece in step.slices for p in piece) == list(range(len(step.rows)))
    assert said.lint_lines == said.lint.lines()


def test_the_scan_in_the_bundle_and_the_job_s_template_are_used(bundle, job, capfd) -> None:
    drop = Drop(reason="empty text", rows=2, first=("a:1",))
    scan = ScanReport(source="a", format="text", rows=ROWS, dropped=(drop,), sha256="", size=1)
    (bundle / "data" / "scan.json").write_bytes(msgspec.json.encode(scan))
    (bundle / "template").mkdir()
    (bundle / "template" / "chat_template.jinja").write_text(tiny.PLAIN)
    assert main(run(bundle, job, "--rows", "1")) == 0
    said = msgspec.json.decode(capfd.readouterr().out, type=Preview)
    assert said.lint.dropped == (drop,)
    assert said.lint.template == "option"
    assert len(said.rows) == 1
    assert said.rows[0].segments[0].text.startswith("user: 0?")


def test_a_row_that_the_template_refuses_is_exit_code_2(bundle, job, capfd) -> None:
    (bundle / "template").mkdir()
    template = "{{ raise_exception('not like this') }}"
    (bundle / "template" / "chat_template.jinja").write_text(template)
    assert main(run(bundle, job)) == 2
    said = json.loads(capfd.readouterr().out)
    assert said["user_error"] is True
    assert "row 1 of the dataset" in said["error"]
    assert "not like this" in said["error"]
    assert "--chat-template" in said["hint"]


def test_a_missing_tokenizer_is_exit_code_2(bundle, job, capfd) -> None:
    for file in (bundle / "model").iterdir():
        file.unlink()
    assert main(run(bundle, job)) == 2
    assert "tokenizer" in msgspec.json.decode(capfd.readouterr().out, type=Trouble).error


def test_damaged_rows_are_exit_code_1(bundle, job, capfd) -> None:
    (bundle / "data" / "train.jsonl").write_bytes(b"x\n")
    assert main(run(bundle, job)) == 1
    said = msgspec.json.decode(capfd.readouterr().out, type=Trouble)
    assert not said.user_error
    assert "damaged" in said.error


def test_what_is_no_job_is_said(bundle, tmp_path, capfd) -> None:
    (tmp_path / "other.json").write_text("{}")
    assert main(run(bundle, tmp_path / "other.json")) == 2
    assert "is not a job" in json.loads(capfd.readouterr().out)["error"]


def test_a_bug_is_reported_as_one(bundle, job, capfd, monkeypatch) -> None:
    monkeypatch.setattr("llamaforge.train.preview.Rows", lambda *_, **__: 1 / 0)
    assert main(run(bundle, job)) == 1
    out, err = capfd.readouterr()
    assert json.loads(out)["error"].startswith("ZeroDivisionError")
    assert "Traceback" in err


def test_segments_put_together_are_the_whole_text() -> None:
    encoder = Encoder(tiny.llama3_base(), max_length=100)
    row = Completion(line=1, prompt="It is t", completion="wo 🙂 words")
    tokens = encoder.encode(row)
    parts = segments(encoder, tokens)
    assert "".join(part.text for part in parts) == encoder.text(tokens.ids)
    assert [part.trained for part in parts] == [False, True]
