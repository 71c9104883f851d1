"""Where a job's folder and its checkpoints go, and that nothing of another job is there.

Without any option it is `runs/NAME`, and NAME is new. With `--auto-resume` a folder may hold an
earlier part of the same job.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from llamaforge.bundle.resume import Resume, Search, search
from llamaforge.errors import UserError
from llamaforge.spec.job import Job, JobSpec

RUNS = Path("runs")
"""Where job folders go by default, below the current folder."""

JOB_FILE = "job.yaml"
_LONGEST = 64


@dataclass(frozen=True, kw_only=True)
class Place:
    """A job's name and folders."""

    id: str
    output_dir: Path
    checkpoint_dir: Path
    resume: Resume | None = None
    notes: tuple[str, ...] = ()


def choose(
    spec: JobSpec, model: str, *, runs: Path = RUNS, same: Callable[[Resume], bool]
) -> Place:
    """Chooses a job's folders, and finds the checkpoint to go on from where that is wanted.

    Args:
        spec: what was asked for.
        model: the model's short name.
        runs: where job folders go by default.
        same: whether a checkpoint is of the job that is asked for. Consulted only to choose among
            earlier jobs when the spec names no folder; otherwise the caller refuses a wrong one.

    Raises:
        UserError: a folder holds something else; nothing was changed.
    """
    if spec.auto_resume:
        return _earlier(spec, model, runs, same)
    fresh = _fresh(spec, model, runs)
    _refuse_used(fresh)
    return fresh


def _fresh(spec: JobSpec, model: str, runs: Path) -> Place:
    if spec.name is not None:
        job_id = spec.name
    elif spec.output_dir is not None:
        job_id = _new_id(spec, model, taken=lambda _: False)
    else:
        job_id = _new_id(spec, model, taken=lambda name: (runs / name).exists())
    return _folders(spec, job_id, runs)


def _folders(spec: JobSpec, job_id: str, runs: Path) -> Place:
    output = Path(spec.output_dir).expanduser() if spec.output_dir else runs / job_id
    kept = Path(spec.checkpoint_dir).expanduser() if spec.checkpoint_dir else output / "checkpoints"
    return Place(id=job_id, output_dir=output, checkpoint_dir=kept)


def _new_id(spec: JobSpec, model: str, taken: Callable[[str], bool]) -> str:
    stem = f"{model_stem(model, spec)}-"
    while True:
        candidate = stem + secrets.token_hex(2)
        if not taken(candidate):
            return candidate


def model_stem(model: str, spec: JobSpec) -> str:
    """The part of a job's name that says what it is: `tiny-llama-lora`."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", model).lstrip("._-") or "model"
    return f"{plain[: _LONGEST - 12]}-{spec.method}"


def _refuse_used(place: Place) -> None:
    """A new job never writes into a folder in which something is."""
    for folder, pattern, option in (
        (place.output_dir, "*", "--output-dir or --name"),
        (place.checkpoint_dir, "step-*", "--checkpoint-dir"),
    ):
        inside = sorted(path.name for path in folder.glob(pattern))
        if inside or (folder.exists() and not folder.is_dir()):
            holds = f"is not empty: it holds {', '.join(inside[:3])}" if inside else "is a file"
            raise UserError(
                f"{folder} {holds}",
                hint=f"choose another folder with {option}, or go on with the job in it: "
                "--auto-resume",
            )


def _earlier(spec: JobSpec, model: str, runs: Path, same: Callable[[Resume], bool]) -> Place:
    """An earlier part of the job where there is one; a new job otherwise."""
    if spec.checkpoint_dir is None and spec.output_dir is None and spec.name is None:
        return _of_this_kind(spec, model, runs, same) or _fresh(spec, model, runs)
    fresh = _fresh(spec, model, runs)
    found = search(fresh.checkpoint_dir)
    began = _job_in(fresh.output_dir)
    if found.resume is not None:
        place = _continued(spec, found, runs)
        _refuse_other(place, found.resume.job.id)
        return place
    _refuse_other(fresh, began.id if began else None)
    return replace(fresh, id=began.id if began else fresh.id, notes=tuple(found.notes))


def _of_this_kind(
    spec: JobSpec, model: str, runs: Path, same: Callable[[Resume], bool]
) -> Place | None:
    """The latest job in `runs` that was asked for with the same options."""
    for folder in _latest(runs, f"{model_stem(model, spec)}-[0-9a-f][0-9a-f][0-9a-f][0-9a-f]"):
        found = search(folder / "checkpoints")
        if found.resume is not None and same(found.resume):
            return _continued(spec, found, runs)
    return None


def _latest(runs: Path, pattern: str) -> Iterator[Path]:
    jobs = [(job.created, folder) for folder in runs.glob(pattern) if (job := _job_in(folder))]
    yield from (folder for _, folder in sorted(jobs, reverse=True))


def _continued(spec: JobSpec, found: Search, runs: Path) -> Place:
    assert found.resume is not None
    place = _folders(spec, found.resume.job.id, runs)
    return replace(place, resume=found.resume, notes=tuple(found.notes))


def _refuse_other(place: Place, job_id: str | None) -> None:
    """A job goes on only in its own folder, or in an empty one."""
    folder = place.output_dir
    inside = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if place.checkpoint_dir.parent == folder:
        inside = [name for name in inside if name != place.checkpoint_dir.name]
    there = _job_in(folder)
    if inside and (there is None or there.id != job_id):
        what = f"holds the job {there.id}" if there else f"holds {', '.join(inside[:3])}"
        raise UserError(
            f"{folder} {what}, not the job {job_id or place.id} that is asked for",
            hint="choose another folder with --output-dir or --name",
        )


def _job_in(folder: Path) -> Job | None:
    """The job whose folder this is; None when it is no job's."""
    try:
        return msgspec.yaml.decode((folder / JOB_FILE).read_bytes(), type=Job)
    except (OSError, msgspec.MsgspecError):
        return None
