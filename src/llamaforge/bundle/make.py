"""From what a person asked for to a job that can run: counts, digests, files, and where to resume.

Everything that a person can get wrong is refused here, before any process starts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from llamaforge import __version__
from llamaforge.bundle import dataset, place
from llamaforge.bundle.checkpoints import Checkpoint, free_bytes_needed
from llamaforge.bundle.dataset import Dataset
from llamaforge.bundle.disk import check_disk
from llamaforge.bundle.manifest import Entry, Manifest
from llamaforge.bundle.models import Found, find_model
from llamaforge.bundle.place import Place
from llamaforge.bundle.resume import Resume, bundle_files, check_same, is_same
from llamaforge.bundle.store import BlobStore
from llamaforge.data.scan import ScanReport
from llamaforge.errors import UserError
from llamaforge.spec import memory
from llamaforge.spec.job import Job, JobSpec, Method

_RATES: dict[Method, float] = {"lora": 2e-4, "full": 2e-5}
"""Peak learning rates where none is asked for."""

_THREADS = 1
"""Compute threads per rank where nobody says: the same on every machine, so that bits agree."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A job that is ready to be submitted; all its files are in the blob store."""

    job: Job
    manifest: Manifest
    scan: ScanReport
    """What was found in the dataset, before rows were held out."""
    output_dir: Path
    """The job's folder; made by whoever runs the job."""
    checkpoint_dir: Path
    resume: Checkpoint | None
    """The verified checkpoint that the job continues from; its files are in the bundle."""
    notes: list[str]
    """Sentences that a person should read before the job starts."""


def make_bundle(
    spec: JobSpec,
    store: BlobStore,
    *,
    processes: int = 1,
    per_process: bool = False,
    threads: int | None = None,
    cache: Path,
) -> Prepared:
    """Resolves a spec into a job and puts its files into the store.

    Args:
        spec: what a person asked for.
        store: where the bundle's files go.
        processes: training processes that will take part; counts only with `per_process`.
        per_process: `spec.batch_size` is rows per process, as torchrun users expect.
        threads: compute threads per rank when the spec leaves it open; 1 by default.
        cache: folder for canonical rows, kept between jobs.

    Raises:
        UserError: data, model, folders or a resume can't be used as asked; the folders are as
            they were.
        IntegrityError: a file changed while it was read, or a checkpoint holds no job.
    """
    model = find_model(spec.model, spec.revision)
    rows, folder = dataset.prepare(spec, store, cache)
    manifest = _bundle(store, _files(spec, model, rows, folder))
    digests = {"data_digest": rows.train.sha256, "model_digest": _model_digest(manifest)}
    where = place.choose(
        spec, model.name, same=lambda resume: is_same(resume, spec=spec, **digests)
    )
    if where.resume is not None:
        check_same(where.resume, spec=spec, **digests)
    job = _job(spec, where, rows, processes if per_process else 1, threads, digests)
    _check_disks(spec, model, where)
    if where.resume is not None:
        manifest = _bundle(store, bundle_files(where.resume.checkpoint), manifest)
    return Prepared(
        job=job,
        manifest=manifest,
        scan=rows.scan,
        output_dir=where.output_dir,
        checkpoint_dir=where.checkpoint_dir,
        resume=where.resume.checkpoint if where.resume else None,
        notes=[*where.notes, *_notes(job, where.resume, spec, rows)],
    )


def _files(spec: JobSpec, model: Found, rows: Dataset, folder: Path) -> Iterator[tuple[str, Path]]:
    """Logical paths in the bundle, and the files that they are made of."""
    yield "data/train.jsonl", folder / "train.jsonl"
    if rows.heldout is not None:
        yield "data/heldout.jsonl", folder / "heldout.jsonl"
    for name in model.files:
        yield f"model/{name}", model.folder / name
    if spec.chat_template is not None:
        yield "template/chat_template.jinja", Path(spec.chat_template).expanduser()


def _bundle(
    store: BlobStore, files: Iterator[tuple[str, Path]], before: Manifest | None = None
) -> Manifest:
    """Adds files to the store, and to a manifest."""
    entries = list(before.entries) if before else []
    for path, source in files:
        try:
            sha256, size = store.add_file(source)
        except OSError as error:
            raise UserError(f"{source}: can't be read: {error.strerror}") from error
        entries.append(Entry(path=path, sha256=sha256, size=size))
    return Manifest(entries=tuple(sorted(entries, key=lambda entry: entry.path)))


def _model_digest(manifest: Manifest) -> str:
    """The model with the template that replaces its own, if any: both decide the tokens."""
    parts = tuple(e for e in manifest.entries if e.path.startswith(("model/", "template/")))
    return Manifest(entries=parts).digest()


def _job(
    spec: JobSpec,
    where: Place,
    rows: Dataset,
    processes: int,
    threads: int | None,
    digests: Mapping[str, str],
) -> Job:
    """Counts rows and steps; a resume keeps those of the job that it goes on with."""
    saved = where.resume.job if where.resume else None
    per_step = saved.rows_per_step if saved else spec.batch_size * processes
    per_epoch = -(-rows.train.rows // per_step)
    total = min(per_epoch * spec.epochs, spec.max_steps or per_epoch * spec.epochs)
    rate = spec.learning_rate if spec.learning_rate is not None else _RATES[spec.method]
    return Job(
        id=where.id,
        spec=spec,
        rows=rows.train.rows,
        heldout_rows=rows.heldout.rows if rows.heldout else 0,
        rows_per_step=per_step,
        steps_per_epoch=saved.steps_per_epoch if saved else per_epoch,
        total_steps=saved.total_steps if saved else total,
        learning_rate=saved.learning_rate if saved else rate,
        threads=saved.threads if saved else spec.threads or threads or _THREADS,
        version=__version__,
        created=saved.created if saved else time.time(),
        **digests,
    )


def _check_disks(spec: JobSpec, model: Found, where: Place) -> None:
    """Refuses a job whose checkpoints or results have no room, before it starts."""
    needs = memory.estimate(model.config, spec=spec, parameters=model.parameters)
    room = free_bytes_needed(where.checkpoint_dir, needs.checkpoint, spec.keep_last)
    check_disk(where.checkpoint_dir, room, what="checkpoints", option="--checkpoint-dir")
    whole = spec.method == "full" or spec.merge
    results = needs.trained + (needs.weights if whole else 0)
    check_disk(where.output_dir, results, what="results", option="--output-dir")


def _notes(job: Job, resume: Resume | None, spec: JobSpec, rows: Dataset) -> Iterator[str]:
    if rows.train.rows < job.rows_per_step:
        yield (
            f"there are fewer rows ({rows.train.rows}) than a step takes ({job.rows_per_step}): "
            "each epoch is one step"
        )
    if rows.heldout_scan is not None and Path(spec.dataset).samefile(rows.heldout_scan.source):
        yield "the held-out rows are the training rows: their loss says nothing about new text"
    if resume is None:
        if spec.auto_resume:
            yield "no checkpoint to go on from: the job starts at its first step"
        return
    step = resume.checkpoint.step
    yield f"going on with {job.id} after step {step} of {job.total_steps}"
    if step >= job.total_steps:
        yield "its last step is committed already; for a new run choose another --name"
    if spec.batch_size != resume.job.spec.batch_size:
        yield (
            f"{job.rows_per_step} rows per step are kept from the checkpoint; "
            f"batch_size={spec.batch_size} does not change them"
        )
    if resume.job.version != __version__:
        yield (
            f"the checkpoint was written by version {resume.job.version}, this is {__version__}: "
            "the numbers may differ from an undisturbed run"
        )
