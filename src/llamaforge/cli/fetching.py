"""A job's files from its coordinator into a folder of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

import msgspec

from llamaforge.bundle.disk import check_disk
from llamaforge.errors import FleetError, UserError
from llamaforge.wire.api import JobFile
from llamaforge.wire.client import FleetClient
from llamaforge.wire.download import PART

CHECKPOINTS = "checkpoints"
"""The folder of checkpoints in a job's folder on its coordinator."""
_JOB_FILE = "job.yaml"


class Fetched(msgspec.Struct, frozen=True, kw_only=True, tag="fetched"):
    """What was fetched."""

    job: str
    folder: str
    files: int
    size: int
    """Bytes."""


async def fetch(
    client: FleetClient,
    job_id: str,
    folder: Path,
    *,
    checkpoints: Path | None = None,
    tell: Callable[[int, int], None] = lambda *_: None,
) -> Fetched:
    """Copies a job's files into a folder; files that are there already are replaced.

    Args:
        client: the fleet's client; open.
        job_id: the job.
        folder: where to; it may hold an earlier copy of the same job.
        checkpoints: where the job's checkpoints go; None: they stay at the coordinator.
        tell: told the bytes that are here so far, and all of them.

    Raises:
        UserError: the folder holds something else, or has no room.
        FleetError: the coordinator is gone, or names a file that can't be meant.
        OSError: the disk refuses.
    """
    wanted = _targets(await client.files(job_id), folder, checkpoints)
    refuse_other(folder, job_id, [file.path for file, _ in wanted])
    total, done = sum(file.size for file, _ in wanted), 0
    check_disk(folder, total, what=f"files of job {job_id}", option="another folder")

    def count(size: int) -> None:
        nonlocal done
        done += size
        tell(done, total)

    for file, target in wanted:
        await client.fetch(job_id, file.path, target, count)
    return Fetched(job=job_id, folder=str(folder), files=len(wanted), size=done)


def _targets(
    files: Sequence[JobFile], folder: Path, checkpoints: Path | None
) -> list[tuple[JobFile, Path]]:
    """Where each file goes; checkpoints only where they are wanted."""
    targets = []
    for file in files:
        first, *rest = parts = _parts(file.path)
        if first != CHECKPOINTS:
            targets.append((file, folder.joinpath(*parts)))
        elif checkpoints is not None and rest:
            targets.append((file, checkpoints.joinpath(*rest)))
    return targets


def _parts(path: str) -> tuple[str, ...]:
    """The parts of a file's path. Raises FleetError for one that leads out of its folder."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise FleetError(f"the coordinator names a file {path!r}, which no job has")
    return parts


def refuse_other(folder: Path, job_id: str, files: Iterable[str]) -> None:
    """Refuses a folder that holds anything but an earlier copy of the same job.

    Raises:
        UserError: it does.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file", hint="choose another folder")
    job_file = folder / _JOB_FILE
    known = {path.partition("/")[0] for path in files} | {CHECKPOINTS}
    strange = sorted(path.name for path in folder.iterdir() if path.name not in known)
    if job_file.is_file():
        there = _job_in(job_file)
        holds = "" if there == job_id else f"the job {there}"
    else:
        holds = ", ".join(name for name in strange[:3] if not name.endswith(PART))
    if holds:
        raise UserError(
            f"{folder} holds {holds}, so job {job_id} is not fetched into it",
            hint=f"choose another folder: llamaforge fetch {job_id} DIR",
        )


def _job_in(file: Path) -> str:
    """The id in a job.yaml; empty when it is none."""
    try:
        said = msgspec.yaml.decode(file.read_bytes())
    except (OSError, msgspec.MsgspecError):
        return ""
    return str(said.get("id", "")) if isinstance(said, dict) else ""
