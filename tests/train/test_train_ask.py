"""Answers before and after a job: they are what plain transformers and peft would say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from jobs import make_job
from llamaforge.errors import DataError, UserError
from llamaforge.spec.job import Job
from llamaforge.train.ask import Model, Question, ask_prompts, ask_rows, read_job
from models import make_model

PROMPTS = ["Hi", "What is the capital of Austria?", "Sort: c b a"]
TOKENS = 12


def make_folder(tmp_path: Path, **spec: Any) -> tuple[Path, Job]:
    """A finished job's folder, without having trained anything."""
    base = make_model(tmp_path / "base")
    folder = tmp_path / "job"
    make_model(folder / "model")
    job = make_job(model=str(base), precision="fp32", **spec)
    if job.spec.method == "lora":
        _write_adapter(base, folder)
    else:
        _write_changed(folder / "model")
    for file in base.glob("token*"):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "chat_template.jinja").write_bytes((base / "chat_template.jinja").read_bytes())
    (folder / "job.yaml").write_bytes(msgspec.yaml.encode(job))
    return folder, job


def _write_adapter(base: Path, folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted: Any = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    adapted.save_pretrained(folder)


def _write_changed(folder: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    model.save_pretrained(folder)


def plain(model: Any, encoder: Any, prompt: str) -> str:
    """What the model says to a prompt, the way transformers' own documentation does it."""
    ids = encoder.tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**ids, max_new_tokens=TOKENS, do_sample=False, pad_token_id=0)
    new = output[0, ids["input_ids"].shape[1] :]
    return str(encoder.tokenizer.decode(new, skip_special_tokens=True)).strip()


def load(folder: Path, job: Job, temperature: float = 0.0) -> Model:
    return Model(folder, job, max_tokens=TOKENS, temperature=temperature)


def asked(model: Model) -> list[dict[str, Any]]:
    lines = [json.dumps({"prompt": prompt}) for prompt in PROMPTS]
    return list(ask_prompts(model, lines, plain=False))


def test_lora_answers_are_those_of_plain_peft(tmp_path: Path) -> None:
    folder, job = make_folder(tmp_path)
    model = load(folder, job)
    base = AutoModelForCausalLM.from_pretrained(job.spec.model, dtype=torch.float32)
    before = [plain(base, model.encoder, prompt) for prompt in PROMPTS]
    adapted = PeftModel.from_pretrained(base, folder)
    after = [plain(adapted, model.encoder, prompt) for prompt in PROMPTS]
    said = asked(model)
    assert [line["before"] for line in said] == before
    assert [line["after"] for line in said] == after
    assert before != after


def test_full_answers_are_those_of_plain_transformers(tmp_path: Path) -> None:
    folder, job = make_folder(tmp_path, method="full")
    model = load(folder, job)
    said = asked(model)
    for key, place in (("before", Path(job.spec.model)), ("after", folder / "model")):
        weights = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
        assert [line[key] for line in said] == [plain(weights, model.encoder, p) for p in PROMPTS]


def test_padding_changes_no_answer(tmp_path: Path) -> None:
    folder, job = make_folder(tmp_path)
    model = load(folder, job)
    questions = [Question(text=p, ids=model.encoder.plain_prompt(p * 3).tolist()) for p in PROMPTS]
    together = model.answers(questions, trained=True)
    assert together == [model.answers([q], trained=True)[0] for q in questions]


def test_exact_matches_are_counted(tmp_path: Path) -> None:
    folder, job = make_folder(tmp_path)
    model = load(folder, job)
    after = [line["after"] for line in asked(model)]
    rows = [
        {"instruction": prompt, "input": "", "output": f" {answer}\n" if at < 2 else "no"}
        for at, (prompt, answer) in enumerate(zip(PROMPTS, after, strict=True))
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    *said, score = ask_rows(model, job, file, None)
    assert [line["exact_after"] for line in said] == [True, True, False]
    assert score == {"type": "score", "rows": 3, "exact_before": 0, "exact_after": 2}
    *_, limited = ask_rows(model, job, file, 1)
    assert limited["rows"] == 1


def test_text_rows_have_nothing_to_match(tmp_path: Path) -> None:
    folder, job = make_folder(tmp_path)
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "just text"}\n')
    with pytest.raises(DataError, match="no row of"):
        list(ask_rows(load(folder, job), job, file, None))


def test_sampling_is_reproducible(tmp_path: Path) -> None:
    folder, job = make_folder(tmp_path)
    hot = [asked(load(folder, job, temperature=2.0)) for _ in range(2)]
    assert hot[0] == hot[1]
    assert hot[0] != asked(load(folder, job))


def test_answers_end_where_the_template_ends_a_turn(tmp_path: Path) -> None:
    folder, job = make_folder(tmp_path)
    model = load(folder, job)
    end = model.encoder.tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert end in model.ends
    letter = model.encoder.tokenizer.encode("x", add_special_tokens=False)[0]
    assert model._text([letter, end, letter]) == "x"


def test_a_folder_without_a_job_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a job's folder"):
        read_job(tmp_path)


def test_the_program_speaks_json_lines(tmp_path: Path) -> None:
    folder, _ = make_folder(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "llamaforge.train.ask", f"--job={folder}", "--max-tokens=4"],
        input='{"prompt": "Hi"}\nnot json\n',
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["type"] for line in lines] == ["ready", "answer", "error"]
    assert lines[1].keys() == {"type", "prompt", "before", "after"}
    assert (done.returncode, lines[2]["exit_code"]) == (2, 2)
