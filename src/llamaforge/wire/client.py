"""The command line's side of a coordinator: submit, follow, ask, stop, fetch.

async with FleetClient.open() as fleet:
    job_id = await fleet.submit(job, manifest, store, output_dir=…, checkpoint_dir=…)
    async for update in fleet.follow(job_id):
        …

What may take long (sending a bundle, submitting, following, fetching) goes on where it was when the
coordinator is restarted meanwhile; the first question to one that is away is refused.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import msgspec

from llamaforge.bundle.manifest import Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import FleetError
from llamaforge.spec import wishes
from llamaforge.spec.job import Job
from llamaforge.wire import api, fleet_file, following
from llamaforge.wire.carrying import Progress, get_file, send_missing
from llamaforge.wire.connection import Connection, job_path
from llamaforge.wire.updates import JobUpdate, Numbered


class FleetClient(Connection):
    """What a command asks of one coordinator; an async context manager."""

    @classmethod
    def open(cls, path: Path | None = None) -> FleetClient:
        """The client of the fleet whose fleet file is at `path`; see `fleet_file.search`.

        Raises:
            FleetError: no fleet runs there.
        """
        fleet = fleet_file.search(path)
        if fleet is None:
            raise FleetError(
                f"no fleet runs here ({fleet_file.default_path()})",
                hint="start one: llamaforge up\n"
                "a fleet on another machine: llamaforge login HOST:PORT\n"
                "a coordinator service on this machine answers root and the group llamaforge\n"
                "what this machine's worker does: systemctl status llamaforge-worker",
            )
        return cls(fleet)

    @property
    def keeps_folders(self) -> bool:
        """Whether jobs' folders are the coordinator's own: it runs as somebody else, or elsewhere.

        Their files are fetched then.
        """
        return bool(self.fleet.identity) or self.fleet.uid not in (-1, os.getuid())

    async def status(self) -> api.Status:
        """The fleet's nodes and jobs. Raises FleetError when the coordinator is gone."""
        return await self.ask("GET", api.STATUS, answer=api.Status)

    async def jobs(self, *, ended: bool = True) -> tuple[api.JobStatus, ...]:
        """The coordinator's jobs, oldest first; without `ended` those that still wait or run."""
        params = {"all": "1"} if ended else {}
        said = await self.through_restarts(lambda: self.request("GET", api.JOBS, params=params))
        return msgspec.json.decode(said, type=api.Jobs).jobs

    async def job(self, job_id: str) -> api.JobStatus:
        """One job. Raises FleetError when it is not known or the coordinator is gone."""
        return await following.job(self, job_id)

    async def submit(
        self,
        job: Job,
        manifest: Manifest,
        store: BlobStore,
        *,
        output_dir: Path | None,
        checkpoint_dir: Path | None,
        resume_step: int | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> str:
        """Sends the blobs that the coordinator lacks, then the training job.

        Args:
            job: what to train.
            manifest: its files.
            store: holds the files.
            output_dir: the job's folder on the coordinator's host; None: one of the coordinator's.
            checkpoint_dir: where checkpoints go there; None likewise.
            resume_step: committed step of the checkpoint in the bundle; None: from the start.
            on_progress: told after each chunk that was sent.

        Returns:
            The job's id.

        Raises:
            FleetError, UserError, IntegrityError: as `send`.
        """
        submission = api.Submission(
            job=job,
            manifest=manifest,
            wishes=wishes.of_job(job),
            output_dir=_absolute(output_dir),
            checkpoint_dir=_absolute(checkpoint_dir),
            resume_step=resume_step,
        )
        return await self.send(submission, store, on_progress)

    async def send(
        self,
        submission: api.Submission,
        store: BlobStore,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> str:
        """Sends the blobs that the coordinator lacks, then the submission: one job, exactly once.

        The coordinator may be restarted meanwhile: the request is repeated under the same key.

        Returns:
            The job's id.

        Raises:
            FleetError: the coordinator could not be reached, stays away, or refused.
            UserError: what was asked can't be done as written.
            IntegrityError: a file of the bundle has changed since it was added.
        """
        keyed = submission
        if not submission.key:
            keyed = msgspec.structs.replace(submission, key=secrets.token_hex(16))
        await send_missing(self, keyed.manifest, store, on_progress or (lambda _: None))
        answer = await self.through_restarts(lambda: self.request("POST", api.JOBS, keyed))
        return msgspec.json.decode(answer, type=api.Submitted).job_id

    async def follow(self, job_id: str, from_start: bool = True) -> AsyncGenerator[JobUpdate, None]:
        """The job's updates, each once and in order, until and including the last `Ended`.

        Args:
            job_id: which job.
            from_start: also those that happened before the call.

        Raises:
            FleetError: the job is not known, or the coordinator stays away.
        """
        position = 0 if from_start else (await self.job(job_id)).updates
        async with aclosing(self.stream(job_id, position)) as stream:
            async for numbered in stream:
                yield numbered.update

    async def stream(
        self, job_id: str, position: int = 0, *, kinds: Iterable[str] = ()
    ) -> AsyncGenerator[Numbered, None]:
        """The job's updates with their numbers, until and including the last `Ended`.

        A lost connection is dialled again, and the stream goes on where it was.

        Args:
            job_id: which job.
            position: number of the first update that is wanted.
            kinds: tags of the updates that are wanted (`log`, `metric`, …); all by default.

        Raises:
            FleetError: the job is not known, or the coordinator stays away.
        """
        async with aclosing(following.stream(self, job_id, position, kinds)) as updates:
            async for numbered in updates:
                yield numbered

    async def history(self, job_id: str) -> AsyncGenerator[Numbered, None]:
        """The updates that the job has at the time of the call, from the first one on."""
        async with aclosing(following.history(self, job_id)) as updates:
            async for numbered in updates:
                yield numbered

    async def stop(self, job_id: str, reason: str, *, now: bool = False) -> None:
        """Asks the job to save a checkpoint and leave; `now`, or a second call, ends it at once.

        Raises:
            FleetError: the job is not known, or the coordinator is gone.
        """
        request = api.StopRequest(reason=reason, now=now)
        await self.ask("POST", f"{job_path(job_id)}/stop", request, answer=api.Submitted)

    async def resume(self, job_id: str) -> None:
        """Queues a stopped or failed job again; it goes on from its newest checkpoint.

        Raises:
            UserError: it can't be resumed, such as one that still runs.
            FleetError: the job is not known, or the coordinator is gone.
        """
        await self.ask("POST", f"{job_path(job_id)}/resume", answer=api.Submitted)

    async def files(self, job_id: str) -> tuple[api.JobFile, ...]:
        """What is in the job's folder on the coordinator."""
        url = f"{job_path(job_id)}/files"
        said = await self.through_restarts(lambda: self.request("GET", url))
        return msgspec.json.decode(said, type=api.JobFiles).files

    async def fetch(
        self, job_id: str, path: str, into: Path, on_chunk: Callable[[int], None] | None = None
    ) -> None:
        """Copies one file of the job's folder; `into` appears when all of it is here.

        Args:
            job_id: which job.
            path: relative to the job's folder.
            into: the file to write.
            on_chunk: told the bytes of each chunk, negative ones when it starts again.

        Raises:
            FleetError: the file or the coordinator is gone.
            OSError: the disk is full or refuses.
        """
        url = f"{job_path(job_id)}/files/{quote(path, safe='/')}"
        await get_file(self, url, into, on_chunk or (lambda _: None))

    async def wish(
        self,
        node: str,
        wish: Literal["drain", "cordon", "allow", "remove"],
        *,
        reason: str = "",
        now: bool = False,
    ) -> None:
        """Says what a node should do from now on.

        Raises:
            UserError: it can't be, such as for a node that is not known.
            FleetError: the coordinator is gone or refuses.
        """
        request = api.NodeWish(wish=wish, reason=reason, now=now)
        await self.through_restarts(
            lambda: self.request("POST", f"{api.NODES}/{quote(node)}", request)
        )

    async def events(
        self, after: int = 0, *, follow: bool = False, kind: str = "", subject: str = ""
    ) -> AsyncGenerator[api.Event, None]:
        """What has happened in the fleet, each event once and in order.

        Args:
            after: number of the last event that is known already.
            follow: wait for more, for ever, through restarts of the coordinator.
            kind: only events of this kind (`job`, `node`, …).
            subject: only events about this job, node, ….

        Raises:
            FleetError: the coordinator is gone, or stays away.
        """
        told = following.events(self, after, follow=follow, kind=kind, subject=subject)
        async with aclosing(told) as events:
            async for event in events:
                yield event


def _absolute(folder: Path | None) -> str:
    return "" if folder is None else str(folder.absolute())
