"""The command line's side of a coordinator: status, submit, follow, stop.

async with FleetClient.open() as fleet:
    job_id = await fleet.submit(job, manifest, store, output_dir=…, checkpoint_dir=…)
    async for update in fleet.follow(job_id):
        …
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType

import msgspec

from llamaforge.bundle.manifest import Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.spec.job import Job
from llamaforge.wire.api import Status
from llamaforge.wire.fleet_file import FleetFile
from llamaforge.wire.updates import JobUpdate


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the upload of a bundle is."""

    path: str
    """Logical path of the file that is being sent."""
    sent: int
    """Bytes of all files sent so far."""
    total: int
    """Bytes of all files that the coordinator lacked."""


class FleetClient:
    """A connection to one coordinator; an async context manager."""

    def __init__(self, fleet: FleetFile) -> None:
        self.fleet = fleet

    @classmethod
    def open(cls, path: Path | None = None) -> FleetClient:
        """The client of the fleet whose fleet file is at `path` (default: this user's).

        Raises:
            FleetError: no fleet runs there.
        """
        raise NotImplementedError

    async def __aenter__(self) -> FleetClient:
        raise NotImplementedError

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        raise NotImplementedError

    async def status(self) -> Status:
        """The fleet's nodes and jobs. Raises FleetError when the coordinator is gone."""
        raise NotImplementedError

    async def submit(
        self,
        job: Job,
        manifest: Manifest,
        store: BlobStore,
        *,
        output_dir: Path,
        checkpoint_dir: Path,
        resume_step: int | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> str:
        """Sends the blobs that the coordinator lacks, then the job.

        Returns:
            The job's id.

        Raises:
            FleetError: the coordinator could not be reached or refused.
            UserError: what was asked can't be done as written.
            IntegrityError: a file of the bundle has changed since it was added.
        """
        raise NotImplementedError

    def follow(self, job_id: str, from_start: bool = True) -> AsyncIterator[JobUpdate]:
        """The job's updates, each once and in order, until and including `Ended`.

        A lost connection is dialled again for a while, and the stream goes on where it was.

        Args:
            job_id: which job.
            from_start: also those that happened before the call.

        Raises:
            FleetError: the job is not known, or the coordinator stays away.
        """
        raise NotImplementedError

    async def stop(self, job_id: str, reason: str, *, now: bool = False) -> None:
        """Asks the job to save a checkpoint and leave; `now`, or a second call, ends it at once.

        Raises:
            FleetError: the job is not known, or the coordinator is gone.
        """
        raise NotImplementedError
