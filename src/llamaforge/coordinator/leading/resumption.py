"""Where the next generation of a job goes on: its newest checkpoint that verifies, as a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from llamaforge.bundle import resume, seal
from llamaforge.bundle.manifest import Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import IntegrityError, LlamaForgeError
from llamaforge.wire.api import Submission

_STATE = f"{resume.FOLDER}/{seal.STATE}"


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What a generation starts from."""

    manifest: Manifest
    """The job's files; those of the checkpoint are below `resume/`."""
    step: int = 0
    """Committed steps."""
    resumed: bool = False
    """Whether there is a checkpoint; without one the job starts at its first step."""
    notes: tuple[str, ...] = ()
    """Damaged checkpoints that were passed over."""


def as_submitted(submission: Submission) -> Start:
    """What the first generation starts from."""
    return Start(
        manifest=submission.manifest,
        step=submission.resume_step or 0,
        resumed=submission.resume_step is not None,
    )


def newest(submission: Submission, folder: Path, store: BlobStore) -> Start:
    """What a later generation starts from. Reads and digests files, so it takes a while.

    Args:
        submission: the job; a script has no checkpoints that we know of.
        folder: where its checkpoints are.
        store: the coordinator's blobs.

    Raises:
        LlamaForgeError: the newest checkpoint is of another job, or can't be read.
    """
    submitted = as_submitted(submission)
    if submission.script is not None:
        return submitted
    found = resume.search(folder)
    notes = tuple(found.notes)
    if found.resume is None or found.resume.checkpoint.step < submitted.step:
        return msgspec.structs.replace(submitted, notes=notes)
    checkpoint = found.resume.checkpoint
    if found.resume.job.id != submission.job_id:
        raise IntegrityError(f"{checkpoint.path} is of the job {found.resume.job.id}")
    try:
        manifest = resume.with_checkpoint(submission.manifest, checkpoint, store)
    except OSError as why:
        raise LlamaForgeError(f"{checkpoint.path} can't be read: {why.strerror or why}") from why
    return Start(manifest=manifest, step=checkpoint.step, resumed=True, notes=notes)


def last_generation(start: Start, store: BlobStore) -> int:
    """The number of the last generation that stands in a start's checkpoint; 0 without one."""
    state = next((entry for entry in start.manifest.entries if entry.path == _STATE), None)
    if state is None:
        return 0
    try:
        saved: dict[str, Any] = msgspec.json.decode(store.path(state.sha256).read_bytes())
        numbers = [int(past["generation"]) for past in saved["cursor"]["generations"]]
    except (OSError, LlamaForgeError, msgspec.MsgspecError, KeyError, TypeError, ValueError):
        return 0  # the ranks, who need it, will say what is wrong with it
    return max(numbers, default=0)
