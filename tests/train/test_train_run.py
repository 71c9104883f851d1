"""The engine against a plain training loop, and what it leaves behind; one process, one rank."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs import make_job
from llamaforge.data.store import Rows
from llamaforge.errors import LlamaForgeError
from llamaforge.spec.job import Job
from llamaforge.spec.ranks import Progress
from llamaforge.spec.schedule import learning_rate
from llamaforge.spec.slices import Order
from llamaforge.train.diagnose import NotFinite
from llamaforge.train.exact import fixed
from llamaforge.train.group import Group
from llamaforge.train.place import Folders, Place
from llamaforge.train.rows.tokens import Encoder
from llamaforge.train.run import Outcome, train
from models import make_model
from ranks import lay_out

ROWS = [
    {"instruction": f"Say {word} {n} times", "output": " ".join([word] * n)}
    for n in (1, 2, 5)
    for word in ("one", "two", "three", "forge", "llama", "slice", "node")
]
PLACE = Place(generation=1, rank=0, world_size=1, local_rank=0, node="here", address="127.0.0.1")


class Kept:
    """A reporter that keeps everything."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.notes: list[tuple[str, str]] = []
        self.saved: list[int] = []
        self.told: list[Progress] = []

    def progress(self, word: Progress) -> None:
        self.told.append(word)

    def metric(self, line: dict[str, Any]) -> None:
        self.lines.append(line)

    def note(self, kind: str, text: str, **fields: Any) -> None:
        self.notes.append((kind, text))

    def checkpoint(self, step: int, path: Path) -> None:
        self.saved.append(step)

    @property
    def losses(self) -> list[float]:
        return [line["loss"] for line in self.lines if "loss" in line]


def run(job: Job, bundle: Path, work: Path, **folders: Any) -> tuple[Outcome, Kept]:
    kept = Kept()
    outcome = train(
        job,
        place=PLACE,
        folders=Folders(
            bundle=bundle,
            checkpoints=work / "checkpoints",
            artifacts=work / "artifacts",
            cache=work / "cache",
            **folders,
        ),
        group=Group.alone(),
        reporter=kept,
        stop=lambda: None,
    )
    return outcome, kept


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "bundle", make_model(tmp_path / "model"), ROWS, heldout=3)


def job(**options: Any) -> Job:
    defaults: dict[str, Any] = {"precision": "fp32", "learning_rate": 2e-3, "epochs": 3}
    return make_job(rows=len(ROWS) - 3, rows_per_step=4, heldout_rows=3, **{**defaults, **options})


def plain_losses(job: Job, bundle: Path) -> list[float]:
    """The same training, written as most people would: rows one by one, torch's own AdamW."""
    torch.manual_seed(job.spec.seed)
    model: Any = AutoModelForCausalLM.from_pretrained(bundle / "model", dtype=torch.float32)
    if job.spec.method == "lora":
        torch.manual_seed(job.spec.seed)
        config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
    tokenizer = AutoTokenizer.from_pretrained(bundle / "model")
    encoder, rows = Encoder(tokenizer, max_length=512), Rows(bundle / "data" / "train.jsonl")
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1.0, weight_decay=job.spec.weight_decay)
    losses = []
    for step in range(job.total_steps):
        batch = [encoder.encode(rows[index]) for index in Order(job).step(step).rows]
        tokens = sum(int(row.trained[1:].sum()) for row in batch)
        total = torch.zeros(())
        for row in batch:
            ids = torch.from_numpy(row.ids).long()
            logits = model(input_ids=ids.unsqueeze(0)).logits[0, :-1]
            wanted = torch.where(torch.from_numpy(row.trained), ids, -100)[1:]
            total = total + cross_entropy(logits, wanted, ignore_index=-100, reduction="sum")
        (total / tokens).backward()
        torch.nn.utils.clip_grad_norm_(parameters, job.spec.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(
                step,
                total=job.total_steps,
                peak=job.learning_rate,
                kind=job.spec.schedule,
                warmup=job.spec.warmup,
            )
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total.item() / tokens)
    return losses


@pytest.mark.parametrize("method", ["lora", "full"])
def test_losses_are_those_of_a_plain_loop(method: str, bundle: Path, tmp_path: Path) -> None:
    asked = job(method=method, weight_decay=0.01)
    _, kept = run(asked, bundle, tmp_path)
    expected = plain_losses(asked, bundle)
    assert len(expected) == 15
    assert kept.losses == pytest.approx(expected, abs=1e-5)
    assert expected[-1] < expected[0] - 0.05


def test_the_adapter_loads_in_plain_peft_and_the_merged_model_in_plain_transformers(
    bundle: Path, tmp_path: Path
) -> None:
    outcome, kept = run(job(merge=True), bundle, tmp_path)
    artifacts = tmp_path / "artifacts"
    base = AutoModelForCausalLM.from_pretrained(bundle / "model", dtype=torch.float32)
    ids = torch.tensor([[256, 72, 105, 33]])
    untrained = base(ids).logits
    adapted = PeftModel.from_pretrained(base, artifacts)(ids).logits
    merged = AutoModelForCausalLM.from_pretrained(artifacts / "merged", dtype=torch.float32)
    assert not torch.allclose(untrained, adapted, atol=1e-2)
    torch.testing.assert_close(merged(ids).logits, adapted, rtol=1e-4, atol=1e-4)
    config = json.loads((artifacts / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "model", "the name that was asked for, no path"
    tokenizer = AutoTokenizer.from_pretrained(artifacts)
    assert "<|role|>assistant" in tokenizer.apply_chat_template(
        [{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=True
    )
    assert outcome.proof["heldout_loss_after"] == kept.lines[-1]["heldout_loss"]


def test_full_weights_load_in_plain_transformers(bundle: Path, tmp_path: Path) -> None:
    run(job(method="full", precision="bf16"), bundle, tmp_path)
    trained = load_file(tmp_path / "artifacts" / "model" / "model.safetensors")
    before = load_file(bundle / "model" / "model.safetensors")
    assert trained.keys() == before.keys()
    changed = [name for name, tensor in trained.items() if not torch.equal(tensor, before[name])]
    assert len(changed) == len(before)
    AutoModelForCausalLM.from_pretrained(tmp_path / "artifacts" / "model")


def test_a_weight_that_is_not_a_number_stops_the_job_and_is_named(
    bundle: Path, tmp_path: Path
) -> None:
    """One embedding is NaN: the row with that byte, and no other, must be found."""
    from safetensors.torch import save_file

    path = (bundle / "model" / "model.safetensors").resolve()
    weights = load_file(path)
    tokenizer = AutoTokenizer.from_pretrained(bundle / "model")
    (byte,) = tokenizer.encode("Q", add_special_tokens=False)
    weights["model.embed_tokens.weight"][byte] = math.nan
    save_file(weights, path, metadata={"format": "pt"})
    bad = {"instruction": "Q", "output": "answer"}
    other = lay_out(tmp_path / "other", path.parent, [*ROWS, bad], heldout=3)
    with pytest.raises(NotFinite) as caught:
        run(make_job(rows=19, rows_per_step=4, heldout_rows=3, precision="fp32"), other, tmp_path)
    assert "row 18: the loss is nan" in caught.value.message
    assert "step " in caught.value.message
    assert "slice " in caught.value.message
    assert "the first tensor" in caught.value.message
    assert "line 22 of the dataset" in caught.value.hint, "rows held out come first there"


def test_an_overflow_is_done_again_and_changes_nothing_else(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without head room many steps overflow; the losses stay those of the plain loop."""
    asked = job(method="full")
    expected = plain_losses(asked, bundle)
    monkeypatch.setattr(fixed, "HEAD_ROOM_BITS", 0)
    outcome, kept = run(asked, bundle, tmp_path)
    assert outcome.proof["steps_redone"] > 0
    assert kept.losses == pytest.approx(expected, abs=1e-5)


def test_a_worker_hears_of_every_step(bundle: Path, tmp_path: Path) -> None:
    _, kept = run(job(), bundle, tmp_path)
    assert [word.step for word in kept.told] == list(range(16))
    assert {(word.total_steps, word.nodes, word.rank) for word in kept.told} == {(15, 1, 0)}
    assert kept.told[0].tokens_per_second is None
    assert all(word.tokens_per_second > 0 for word in kept.told[1:])


def test_saves_where_asked_and_keeps_the_last(bundle: Path, tmp_path: Path) -> None:
    _, kept = run(job(save_steps=4, keep_last=2), bundle, tmp_path)
    assert kept.saved == [4, 8, 12, 15]
    standing = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert standing == ["step-00000012", "step-00000015"]


def test_a_finished_job_resumes_to_its_own_end(bundle: Path, tmp_path: Path) -> None:
    first, _ = run(job(), bundle, tmp_path)
    last = tmp_path / "checkpoints" / "step-00000015"
    again, kept = run(job(), bundle, tmp_path / "again", resume=last)
    assert kept.losses == []
    assert again.proof["weights_sha256"] == first.proof["weights_sha256"]
    assert again.proof["rows_trained"] == first.proof["rows_trained"]


def test_a_resume_on_other_kernels_does_not_promise_the_same_numbers(
    bundle: Path, tmp_path: Path
) -> None:
    run(job(save_steps=4, max_steps=4), bundle, tmp_path)
    saved = tmp_path / "checkpoints" / "step-00000004"
    again, _ = run(job(), bundle, tmp_path / "again", resume=saved)
    assert again.proof["guarantee"] == "same numbers"
    state = json.loads((saved / "state.json").read_text())
    state["cursor"]["generations"][0]["canary"] = "0" * 64
    (saved / "state.json").write_text(json.dumps(state))
    other, _ = run(job(), bundle, tmp_path / "other", resume=saved)
    assert other.proof["guarantee"] == "same rows"
    assert "generation 1 computed the canary slice to other bits" in other.proof["guarantee_why"]


def test_whoever_is_told_to_stop_saves_first_and_does_not_evaluate(
    bundle: Path, tmp_path: Path
) -> None:
    kept = Kept()
    outcome = train(
        job(eval_steps=1),
        place=PLACE,
        folders=Folders(
            bundle=bundle,
            checkpoints=tmp_path / "checkpoints",
            artifacts=tmp_path / "artifacts",
            cache=tmp_path / "cache",
        ),
        group=Group.alone(),
        reporter=kept,
        stop=lambda: "SIGTERM" if len(kept.losses) == 2 else None,
    )
    text = f"told to leave: here; all stop after step {kept.told[-1].step}"
    assert ("leaving", text) in kept.notes
    assert outcome.stopped
    assert kept.saved == [3]
    assert [line["step"] for line in kept.lines if "heldout_loss" in line] == [0, 1, 2]
    assert not (tmp_path / "artifacts").exists()


def test_samples_and_held_out_losses_on_the_way(bundle: Path, tmp_path: Path) -> None:
    _, kept = run(job(eval_steps=5, sample_prompts=("Say one",), sample_tokens=4), bundle, tmp_path)
    assert [line["step"] for line in kept.lines if "heldout_loss" in line] == [0, 5, 10, 15]
    assert [kind for kind, _ in kept.notes].count("sample") == 4


def test_rows_without_a_trained_token_are_counted_but_train_nothing(
    tmp_path: Path,
) -> None:
    """All prompts fill max_length: no step has anything to train, and nothing divides by zero."""
    model = make_model(tmp_path / "model")
    long = [{"instruction": "x" * 60, "output": "y"} for _ in range(5)]
    bundle = lay_out(tmp_path / "bundle", model, long)
    asked = make_job(rows=5, rows_per_step=2, precision="fp32", max_length=16)
    outcome, kept = run(asked, bundle, tmp_path)
    assert outcome.proof["rows_trained"] == 5
    assert outcome.proof["tokens"] == 0
    assert kept.losses == [None, None, None], "there is no loss, and it is not said to be 0"


def test_a_disk_that_refuses_the_results_is_said_in_one_sentence(
    bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "artifacts").write_text("in the way")
    with pytest.raises(LlamaForgeError, match="the results can't be written") as caught:
        run(job(max_steps=2), bundle, tmp_path)
    assert "--auto-resume" in caught.value.hint
