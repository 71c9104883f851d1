from __future__ import annotations

import json
import re
import shutil
from collections import namedtuple
from pathlib import Path

import msgspec
import pytest
from model_files import lay_out, model_files

from llamaforge.bundle import checkpoints
from llamaforge.bundle.make import Prepared, make_bundle
from llamaforge.bundle.store import BlobStore
from llamaforge.data import scan
from llamaforge.errors import DataError, IntegrityError, ModelError, SpecError, UserError
from llamaforge.spec.job import Job, JobSpec


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder, with a dataset of ten rows and a model."""
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path / "small-llama", model_files())
    write_rows(tmp_path / "rows.jsonl", 10)
    return tmp_path


def write_rows(path: Path, count: int, word: str = "answer") -> None:
    rows = ({"instruction": f"question {n}", "output": f"{word} {n}"} for n in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def spec(**options) -> JobSpec:
    return JobSpec(**{"model": "small-llama", "dataset": "rows.jsonl", "batch_size": 4, **options})


def make(folder: Path, asked: JobSpec, **how) -> Prepared:
    return make_bundle(asked, BlobStore(folder / "store"), cache=folder / "cache", **how)


def run(prepared: Prepared, *steps: int, finished: bool = False) -> None:
    """What a run leaves behind: its folder and a checkpoint after each of `steps`."""
    prepared.output_dir.mkdir(parents=True, exist_ok=True)
    (prepared.output_dir / "job.yaml").write_bytes(msgspec.yaml.encode(prepared.job))
    (prepared.output_dir / "metrics.jsonl").write_text("")
    for step in steps:
        with checkpoints.begin(prepared.checkpoint_dir, step) as partial:
            (partial.path / "trained.safetensors").write_bytes(b"weights")
            partial.commit({"job": msgspec.to_builtins(prepared.job)}, keep=2)


# ── a new job ─────────────────────────────────────────────────────────────────────────────────


def test_a_job_counts_its_rows_and_steps_and_lists_its_files(folder):
    prepared = make(folder, spec(epochs=3, heldout="0.2"))
    job = prepared.job
    assert (job.rows, job.heldout_rows, job.rows_per_step) == (8, 2, 4)
    assert (job.steps_per_epoch, job.total_steps, job.threads) == (2, 6, 1)
    assert [entry.path for entry in prepared.manifest.entries] == [
        "data/heldout.jsonl",
        "data/train.jsonl",
        "model/chat_template.jinja",
        "model/config.json",
        "model/model.safetensors",
        "model/tokenizer.json",
        "model/tokenizer_config.json",
    ]
    assert prepared.scan.rows == 10
    assert job.data_digest == prepared.manifest.entries[1].sha256
    assert prepared.resume is None


def test_the_store_can_lay_the_whole_bundle_out(folder):
    prepared = make(folder, spec())
    BlobStore(folder / "store").lay_out(prepared.manifest, folder / "bundle")
    rows = (folder / "bundle" / "data" / "train.jsonl").read_text().splitlines()
    assert len(rows) == 10
    assert (folder / "bundle" / "model" / "model.safetensors").stat().st_size > 100


def test_the_last_step_of_an_epoch_may_be_short_and_max_steps_cuts(folder):
    assert make(folder, spec(epochs=2)).job.total_steps == 6
    assert make(folder, spec(epochs=2, max_steps=5)).job.total_steps == 5
    assert make(folder, spec(epochs=2, max_steps=50)).job.total_steps == 6


def test_more_rows_per_step_than_rows_is_one_step_and_said(folder):
    prepared = make(folder, spec(batch_size=64))
    assert prepared.job.total_steps == 1
    assert any("fewer rows (10) than a step takes (64)" in note for note in prepared.notes)


def test_batch_size_per_process_is_multiplied(folder):
    job = make(folder, spec(batch_size=2), processes=3, per_process=True).job
    assert (job.rows_per_step, job.spec.batch_size) == (6, 2)
    assert make(folder, spec(batch_size=2), processes=3).job.rows_per_step == 2


def test_the_learning_rate_follows_the_method_unless_given(folder):
    assert make(folder, spec()).job.learning_rate == 2e-4
    assert make(folder, spec(method="full")).job.learning_rate == 2e-5
    assert make(folder, spec(learning_rate=3e-3)).job.learning_rate == 3e-3


def test_threads_come_from_the_spec_then_the_caller_then_one(folder):
    assert make(folder, spec(threads=3), threads=2).job.threads == 3
    assert make(folder, spec(), threads=2).job.threads == 2


def test_names_are_of_model_and_method_and_never_taken_twice(folder, monkeypatch):
    tokens = iter(["00aa", "00aa", "00bb"])
    monkeypatch.setattr("secrets.token_hex", lambda _: next(tokens))
    first = make(folder, spec())
    assert first.job.id == "small-llama-lora-00aa"
    assert first.output_dir == Path("runs/small-llama-lora-00aa")
    assert first.checkpoint_dir == Path("runs/small-llama-lora-00aa/checkpoints")
    run(first)
    assert make(folder, spec()).job.id == "small-llama-lora-00bb"


def test_a_folder_name_that_is_no_job_name_is_made_one(folder):
    odd = folder / "_my llama (v2) ü" / ("x" * 80)
    lay_out(odd.parent, model_files())
    lay_out(odd, model_files())
    for model in (odd.parent, odd):
        job = make(folder, spec(model=str(model))).job
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", job.id)


def test_digests_tell_data_model_and_template_apart(folder):
    base = make(folder, spec()).job
    assert make(folder, spec()).job.model_digest == base.model_digest
    (folder / "mine.jinja").write_text("{{ messages[0].content }}")
    templated = make(folder, spec(chat_template="mine.jinja"))
    assert templated.job.model_digest != base.model_digest
    assert templated.job.data_digest == base.data_digest
    assert any(e.path == "template/chat_template.jinja" for e in templated.manifest.entries)
    write_rows(folder / "rows.jsonl", 10, word="other")
    assert make(folder, spec()).job.data_digest != base.data_digest


# ── canonical rows are made once ──────────────────────────────────────────────────────────────


@pytest.fixture
def scans(monkeypatch):
    """Counts how often a dataset is read."""
    calls = []

    def counting(source, **how):
        calls.append(str(source))
        return scan.canonicalise(source, **how)

    monkeypatch.setattr("llamaforge.bundle.dataset.canonicalise", counting)
    return calls


def test_an_unchanged_dataset_is_read_once(folder, scans):
    first = make(folder, spec(heldout="0.2"))
    again = make(folder, spec(heldout="0.2", learning_rate=1e-5, lora_r=4))
    assert scans == ["rows.jsonl"]
    assert again.scan == first.scan
    assert again.manifest == first.manifest


@pytest.mark.parametrize(
    "other",
    [
        {"heldout": "0.3"},
        {"heldout": "0.2", "seed": 1},
        {"heldout": None},
        {"heldout": "0.2", "format": "alpaca"},
        {"heldout": "0.2", "fields": {"input": "extra"}},
    ],
)
def test_every_setting_that_changes_rows_reads_them_again(folder, scans, other):
    make(folder, spec(heldout="0.2"))
    make(folder, spec(**other))
    assert len(scans) == 2


def test_a_changed_dataset_is_read_again(folder, scans):
    make(folder, spec())
    write_rows(folder / "rows.jsonl", 7)
    assert make(folder, spec()).job.rows == 7
    assert len(scans) == 2


def test_rows_that_were_damaged_in_the_cache_are_made_again(folder, scans):
    make(folder, spec())
    for name in ("train.jsonl", "report.json"):
        next((folder / "cache" / "rows").glob(f"*/{name}")).write_text("x")
        assert make(folder, spec()).job.rows == 10
    assert len(scans) == 3


def test_a_heldout_file_leaves_the_training_rows_whole(folder):
    write_rows(folder / "held.jsonl", 3)
    prepared = make(folder, spec(heldout="held.jsonl"))
    assert (prepared.job.rows, prepared.job.heldout_rows) == (10, 3)
    assert make(folder, spec(heldout="rows.jsonl")).notes == [
        "the held-out rows are the training rows: their loss says nothing about new text"
    ]


# ── refusals ──────────────────────────────────────────────────────────────────────────────────


def test_a_missing_dataset_and_a_missing_model_are_named(folder):
    with pytest.raises(DataError, match=r"absent\.jsonl"):
        make(folder, spec(dataset="absent.jsonl"))
    with pytest.raises(ModelError, match="small-lama"):
        make(folder, spec(model="./small-lama"))
    with pytest.raises(UserError, match=r"none\.jinja"):
        make(folder, spec(chat_template="none.jinja"))


def test_a_folder_that_is_not_empty_is_refused(folder):
    lay_out(folder / "runs" / "mine", {"notes.txt": b"mine"})
    with pytest.raises(UserError, match=r"runs/mine is not empty: it holds notes.txt") as caught:
        make(folder, spec(name="mine"))
    assert "--auto-resume" in caught.value.hint
    with pytest.raises(UserError, match=r"holds notes.txt, not the job"):
        make(folder, spec(name="mine", auto_resume=True))
    with pytest.raises(UserError, match="is a file"):
        make(folder, spec(output_dir="rows.jsonl"))
    (folder / "empty").mkdir()
    assert make(folder, spec(output_dir="empty")).output_dir == Path("empty")


def test_checkpoints_of_another_job_are_never_mixed_with_a_new_ones(folder):
    run(make(folder, spec(checkpoint_dir="kept")), 2)
    with pytest.raises(UserError, match="kept is not empty: it holds step-00000002"):
        make(folder, spec(checkpoint_dir="kept"))


def test_too_little_room_for_checkpoints_is_said_before_the_start(folder, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 0, 1000))
    with pytest.raises(UserError, match=r"checkpoints in .* need 3 MB, 0 MB are free"):
        make(folder, spec(method="full", output_dir="out"))
    assert not (folder / "out").exists()


# ── going on ──────────────────────────────────────────────────────────────────────────────────


def test_resume_on_a_first_start_just_starts(folder):
    prepared = make(folder, spec(auto_resume=True, name="mine"))
    assert prepared.resume is None
    assert prepared.job.id == "mine"
    assert prepared.notes == ["no checkpoint to go on from: the job starts at its first step"]


@pytest.mark.parametrize(
    "where", [{}, {"name": "mine"}, {"output_dir": "out"}, {"checkpoint_dir": "kept"}]
)
def test_resume_finds_the_job_however_its_place_was_named(folder, where):
    first = make(folder, spec(epochs=4, **where))
    run(first, 2, 5)
    again = make(folder, spec(epochs=4, auto_resume=True, **where))
    assert again.resume is not None
    assert again.resume.step == 5
    assert (again.output_dir, again.checkpoint_dir) == (first.output_dir, first.checkpoint_dir)
    assert again.job == msgspec.structs.replace(first.job, spec=again.job.spec)
    assert [e.path for e in again.manifest.entries if e.path.startswith("resume/")] == [
        "resume/manifest.json",
        "resume/state.json",
        "resume/trained.safetensors",
    ]
    BlobStore(folder / "store").lay_out(again.manifest, folder / "bundle")
    assert checkpoints.verify(folder / "bundle" / "resume").step == 5


def test_a_job_that_was_cut_off_before_its_first_checkpoint_starts_again_in_its_folder(folder):
    first = make(folder, spec(output_dir="out"))
    run(first)
    again = make(folder, spec(output_dir="out", auto_resume=True))
    assert again.job.id == first.job.id
    assert again.resume is None


def test_without_a_name_the_latest_job_of_the_same_options_goes_on(folder, monkeypatch):
    tokens = iter(["00aa", "00bb", "00cc", "00dd"])
    monkeypatch.setattr("secrets.token_hex", lambda _: next(tokens))
    clock = iter(range(100, 200))
    monkeypatch.setattr("time.time", lambda: float(next(clock)))
    for rank in (8, 8, 16):
        run(make(folder, spec(lora_r=rank)), 1)
    assert make(folder, spec(auto_resume=True)).job.id == "small-llama-lora-00bb"
    assert make(folder, spec(auto_resume=True, lora_r=16)).job.id == "small-llama-lora-00cc"
    assert make(folder, spec(auto_resume=True, lora_r=32)).job.id == "small-llama-lora-00dd"


def test_steps_rows_and_rate_stay_those_of_the_checkpoint(folder):
    asked = spec(batch_size=2, name="mine", epochs=4, learning_rate=1e-3)
    first = make(folder, asked, processes=2, per_process=True, threads=2)
    run(first, 3)
    again = make(
        folder,
        spec(batch_size=3, name="mine", epochs=4, auto_resume=True),
        processes=5,
        per_process=True,
        threads=1,
    )
    for key in ("rows_per_step", "steps_per_epoch", "total_steps", "threads", "learning_rate"):
        assert getattr(again.job, key) == getattr(first.job, key), key
    assert any("4 rows per step are kept from the checkpoint" in note for note in again.notes)


def test_a_damaged_checkpoint_is_passed_over_aloud(folder):
    first = make(folder, spec(name="mine"))
    run(first, 1, 2)
    (first.checkpoint_dir / "step-00000002" / "trained.safetensors").write_bytes(b"w")
    again = make(folder, spec(name="mine", auto_resume=True))
    assert again.resume is not None
    assert again.resume.step == 1
    assert any("passed over" in note and "has 1 bytes, not 7" in note for note in again.notes)


def test_a_finished_job_says_so(folder):
    first = make(folder, spec(name="mine"))
    run(first, first.job.total_steps)
    notes = make(folder, spec(name="mine", auto_resume=True)).notes
    assert any("its last step is committed already" in note for note in notes)


CHANGES = {
    "method": "full",
    "lora_r": 16,
    "lora_alpha": 32.0,
    "lora_dropout": 0.1,
    "lora_targets": ("q_proj",),
    "rslora": True,
    "precision": "fp32",
    "seed": 7,
    "max_length": 128,
    "slices": 3,
    "slice_tokens": 64,
    "train_on": "all",
    "epochs": 2,
    "max_steps": 1,
    "learning_rate": 1.0,
    "schedule": "linear",
    "warmup": 0.5,
    "weight_decay": 0.1,
    "adam_beta1": 0.5,
    "adam_beta2": 0.5,
    "adam_eps": 1e-3,
    "max_grad_norm": 0.0,
    "threads": 9,
}
FREE = {
    "gradient_checkpointing": True,
    "eval_steps": 3,
    "sample_prompts": ("hello",),
    "sample_tokens": 5,
    "save_steps": 1,
    "save_minutes": 0.5,
    "keep_last": 4,
    "merge": True,
    "tensorboard": True,
    "nodes": 2,
    "min_nodes": 2,
    "labels": ("fast",),
    "min_memory": 1.5,
    "min_gpus": 1,
    "same_numbers": True,
    "priority": 7,
    "ranks_per_node": 2,
    "on_node_loss": "fail",
    "batch_size": 2,
}
ELSEWHERE = {
    "model",
    "dataset",
    "revision",
    "format",
    "fields",
    "heldout",
    "chat_template",
    "checkpoint_dir",
    "auto_resume",
    "output_dir",
    "name",
}
"""Options that find things: what they find is compared by its digest, or is a place."""


def test_every_option_is_decided_about():
    assert set(CHANGES) | set(FREE) | ELSEWHERE == set(JobSpec.__struct_fields__)


@pytest.mark.parametrize("option", CHANGES)
def test_a_resume_refuses_what_would_change_the_result(folder, option):
    first = make(folder, spec(name="mine"))
    run(first, 1)
    old = getattr(first.job if option in ("learning_rate", "threads") else first.job.spec, option)
    with pytest.raises(SpecError) as caught:
        make(folder, spec(name="mine", auto_resume=True, **{option: CHANGES[option]}))
    assert f"{option} was {old}, now {CHANGES[option]}" in caught.value.message


@pytest.mark.parametrize("option", FREE)
def test_a_resume_takes_what_does_not_change_the_result(folder, option):
    run(make(folder, spec(name="mine")), 1)
    prepared = make(folder, spec(name="mine", auto_resume=True, **{option: FREE[option]}))
    assert prepared.resume is not None
    assert getattr(prepared.job.spec, option) == FREE[option]


def test_a_resume_refuses_other_rows_another_model_and_another_template(folder):
    run(make(folder, spec(name="mine")), 1)
    asked = spec(name="mine", auto_resume=True)
    with pytest.raises(SpecError, match=r"dataset was rows.jsonl \(SHA-256 .*now rows.jsonl"):
        make(folder, spec(name="mine", auto_resume=True, heldout="0.2"))
    (folder / "mine.jinja").write_text("{{ messages }}!")
    with pytest.raises(SpecError, match="model or chat_template was"):
        make(folder, spec(name="mine", auto_resume=True, chat_template="mine.jinja"))
    config = folder / "small-llama" / "config.json"
    config.write_text(config.read_text().replace("}", ', "x": 1}'))
    with pytest.raises(SpecError, match="model was small-llama"):
        make(folder, asked)


def test_the_same_rows_under_another_name_are_the_same_job(folder):
    run(make(folder, spec(name="mine")), 1)
    (folder / "rows.jsonl").rename(folder / "renamed.jsonl")
    prepared = make(folder, spec(name="mine", auto_resume=True, dataset="renamed.jsonl"))
    assert prepared.resume is not None


def test_a_folder_of_another_job_is_not_gone_on_in(folder):
    run(make(folder, spec(name="one", checkpoint_dir="kept")), 1)
    run(make(folder, spec(name="two")))
    asked = spec(output_dir="runs/two", checkpoint_dir="kept", auto_resume=True)
    with pytest.raises(UserError, match="runs/two holds the job two, not the job one"):
        make(folder, asked)


def test_a_checkpoint_without_a_job_is_refused(folder):
    with checkpoints.begin(folder / "kept", 1) as partial:
        partial.commit({"weights": "of some other program"}, keep=2)
    with pytest.raises(IntegrityError, match="holds no job that can go on"):
        make(folder, spec(checkpoint_dir="kept", auto_resume=True))


def test_a_checkpoint_of_another_version_may_know_other_options(folder):
    first = make(folder, spec(name="mine"))
    old = msgspec.structs.replace(first.job, version="0.0.9")
    plain = msgspec.to_builtins(old)
    plain["spec"]["an_option_of_old"] = 3
    with checkpoints.begin(first.checkpoint_dir, 1) as partial:
        partial.commit({"job": plain}, keep=2)
    prepared = make(folder, spec(name="mine", auto_resume=True))
    assert isinstance(prepared.job, Job)
    assert any("was written by version 0.0.9" in note for note in prepared.notes)
