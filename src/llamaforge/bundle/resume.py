"""Going on with a job: where its checkpoint is, and whether what is asked for is still that job.

A checkpoint keeps the job that made it. A resume takes from there what the schedule and the steps
hang on, and refuses anything that would give other weights than an undisturbed run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from llamaforge.bundle import checkpoints
from llamaforge.bundle.checkpoints import Checkpoint
from llamaforge.bundle.manifest import Entry, Manifest
from llamaforge.bundle.seal import MANIFEST
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import IntegrityError, SpecError
from llamaforge.spec.job import Job, JobSpec

FOLDER = "resume"
"""Where a bundle holds the checkpoint that the job goes on from."""

_DECIDES = (
    "method",
    "precision",
    "seed",
    "max_length",
    "slices",
    "slice_tokens",
    "train_on",
    "epochs",
    "max_steps",
    "schedule",
    "warmup",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_eps",
    "max_grad_norm",
)
"""Options that decide the numbers of a job, whatever its method."""

_DECIDES_LORA = ("lora_r", "lora_alpha", "lora_dropout", "lora_targets", "rslora")


@dataclass(frozen=True, kw_only=True)
class Resume:
    """A verified checkpoint, and the job that made it."""

    checkpoint: Checkpoint
    job: Job


@dataclass(frozen=True, kw_only=True)
class Search:
    """What was found where checkpoints should be."""

    resume: Resume | None
    notes: list[str]
    """Damaged checkpoints that were passed over."""


def search(root: Path) -> Search:
    """Looks for the newest checkpoint that verifies.

    Raises:
        IntegrityError: it verifies, but its state.json holds no job.
    """
    found = checkpoints.newest(root)
    notes = [f"damaged checkpoint passed over: {why}" for _, why in found.damaged]
    if found.checkpoint is None:
        return Search(resume=None, notes=notes)
    job = _saved_job(found.checkpoint)
    return Search(resume=Resume(checkpoint=found.checkpoint, job=job), notes=notes)


def bundle_files(checkpoint: Checkpoint) -> Iterator[tuple[str, Path]]:
    """A checkpoint's files: where each stands in a bundle, and where it stands now."""
    for name in (MANIFEST, *(entry.path for entry in checkpoint.manifest.entries)):
        yield f"{FOLDER}/{name}", checkpoint.path / name


def with_checkpoint(manifest: Manifest, checkpoint: Checkpoint, store: BlobStore) -> Manifest:
    """A bundle that goes on from a checkpoint, in place of the one that it went on from before.

    Raises:
        OSError: a file of the checkpoint can't be read.
        IntegrityError: a file changed while it was read.
    """
    entries = [entry for entry in manifest.entries if not entry.path.startswith(f"{FOLDER}/")]
    for path, source in bundle_files(checkpoint):
        sha256, size = store.add_file(source)
        entries.append(Entry(path=path, sha256=sha256, size=size))
    return Manifest(entries=tuple(sorted(entries, key=lambda entry: entry.path)))


def check_same(resume: Resume, *, spec: JobSpec, data_digest: str, model_digest: str) -> None:
    """Refuses to go on with a job that is not the one that was saved.

    Raises:
        SpecError: names every option that differs, with its old and its new value.
    """
    differences = list(_differences(resume.job, spec, data_digest, model_digest))
    if differences:
        raise SpecError(
            f"{resume.checkpoint.path} is of another job: "
            + "; ".join(f"{name} was {old}, now {new}" for name, old, new in differences),
            hint="give the old values to go on with it, or start anew without --auto-resume in "
            "another folder (--name, --output-dir, --checkpoint-dir)",
        )


def is_same(resume: Resume, *, spec: JobSpec, data_digest: str, model_digest: str) -> bool:
    """Whether `check_same` would not refuse."""
    return not any(_differences(resume.job, spec, data_digest, model_digest))


def _differences(
    old: Job, new: JobSpec, data_digest: str, model_digest: str
) -> Iterator[tuple[str, object, object]]:
    """Name, old value and new value of all that decides the result and is not the same."""
    names = _DECIDES + (_DECIDES_LORA if old.spec.method == "lora" else ())
    for name in names:
        before, now = getattr(old.spec, name), getattr(new, name)
        if before != now:
            yield name, before, now
    if new.learning_rate is not None and new.learning_rate != old.learning_rate:
        yield "learning_rate", old.learning_rate, new.learning_rate
    if new.threads is not None and new.threads != old.threads:
        yield "threads", old.threads, new.threads
    if data_digest != old.data_digest:
        yield (
            "dataset",
            _digested(old.spec.dataset, old.data_digest),
            _digested(new.dataset, data_digest),
        )
    if model_digest != old.model_digest:
        name = "model"
        if old.spec.model == new.model and (old.spec.chat_template or new.chat_template):
            name = "model or chat_template"
        yield name, _digested(old.spec.model, old.model_digest), _digested(new.model, model_digest)


def _digested(name: str, digest: str) -> str:
    return f"{name} (SHA-256 {digest[:12]}…)"


def _saved_job(checkpoint: Checkpoint) -> Job:
    """The job in state.json; options that this version doesn't know are left out."""
    saved = checkpoint.state.get("job")
    try:
        if not isinstance(saved, dict) or not isinstance(saved.get("spec"), dict):
            raise msgspec.ValidationError("no job")
        known = {k: v for k, v in saved["spec"].items() if k in JobSpec.__struct_fields__}
        job: Any = {**saved, "spec": known}
        return msgspec.convert(job, Job)
    except msgspec.ValidationError as error:
        raise IntegrityError(
            f"{checkpoint.path} holds no job that can go on: {error}",
            hint="start anew without --auto-resume, in another folder",
        ) from error
