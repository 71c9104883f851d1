"""From what a person asked for to a job that can run: counts, digests, files, and where to resume.

Everything that a person can get wrong is refused here, before any process starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llamaforge.bundle.checkpoints import Checkpoint
    from llamaforge.bundle.manifest import Manifest
    from llamaforge.bundle.store import BlobStore
    from llamaforge.data.scan import ScanReport
    from llamaforge.spec.job import Job, JobSpec


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A job that is ready to be submitted; all its files are in the blob store."""

    job: Job
    manifest: Manifest
    scan: ScanReport
    """What the linter saw in the training rows."""
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
        UserError: data, model, folders or a resume can't be used as asked; nothing was changed.
    """
    raise NotImplementedError
