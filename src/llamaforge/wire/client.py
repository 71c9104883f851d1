"""The command line's side of a coordinator: status, submit, follow, stop.

async with FleetClient.open() as fleet:
    job_id = await fleet.submit(job, manifest, store, output_dir=…, checkpoint_dir=…)
    async for update in fleet.follow(job_id):
        …
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import aiohttp
import msgspec

from llamaforge.bundle.manifest import Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import FleetError
from llamaforge.spec.job import Job
from llamaforge.wire import api, fleet_file
from llamaforge.wire.auth import header
from llamaforge.wire.fleet_file import FleetFile
from llamaforge.wire.refused import check
from llamaforge.wire.transfer import chunks
from llamaforge.wire.updates import Ended, JobUpdate, Numbered

ASK_SECONDS = 30.0
"""How long a small request may take."""
AWAY_SECONDS = 15.0
"""How long `follow` dials a coordinator that has gone away."""
REDIAL_SECONDS = 0.5

Answer = TypeVar("Answer")


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
        self.keeper: Callable[[], Iterable[str]] | None = None
        """Where the fleet is this process's own: starts what has ended again, returns its names."""
        self._http: aiohttp.ClientSession | None = None

    @classmethod
    def open(cls, path: Path | None = None) -> FleetClient:
        """The client of the fleet whose fleet file is at `path` (default: this user's).

        Raises:
            FleetError: no fleet runs there.
        """
        fleet = fleet_file.find(path)
        if fleet is None:
            raise FleetError(
                f"no fleet runs here ({path or fleet_file.default_path()})",
                hint="start one: llamaforge up\n"
                "a fleet answers who started its coordinator; another's fleet file: --fleet FILE\n"
                "what this machine's worker does: systemctl status llamaforge-worker",
            )
        return cls(fleet)

    async def __aenter__(self) -> FleetClient:
        self._http = aiohttp.ClientSession(
            self.fleet.url,
            headers=header(self.fleet.token),
            timeout=aiohttp.ClientTimeout(total=ASK_SECONDS),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def status(self) -> api.Status:
        """The fleet's nodes and jobs. Raises FleetError when the coordinator is gone."""
        return await self._ask("GET", api.STATUS, answer=api.Status)

    async def job(self, job_id: str) -> api.JobStatus:
        """One job. Raises FleetError when it is not known or the coordinator is gone."""
        return await self._ask("GET", f"{api.JOBS}/{job_id}", answer=api.JobStatus)

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
        await self._send_missing(manifest, store, on_progress or (lambda _: None))
        submission = api.Submission(
            job=job,
            manifest=manifest,
            output_dir=str(output_dir.absolute()),
            checkpoint_dir=str(checkpoint_dir.absolute()),
            resume_step=resume_step,
        )
        answer = await self._ask("POST", api.JOBS, submission, answer=api.Submitted)
        return answer.job_id

    async def follow(self, job_id: str, from_start: bool = True) -> AsyncIterator[JobUpdate]:
        """The job's updates, each once and in order, until and including `Ended`.

        A lost connection is dialled again for a while, and the stream goes on where it was.

        Args:
            job_id: which job.
            from_start: also those that happened before the call.

        Raises:
            FleetError: the job is not known, or the coordinator stays away.
        """
        position = 0 if from_start else (await self.job(job_id)).updates
        last_seen = time.monotonic()
        while True:
            try:
                async for numbered in self._listen(job_id, position):
                    position = numbered.number + 1
                    yield numbered.update
                    last_seen = time.monotonic()
                    if isinstance(numbered.update, Ended):
                        return
            except (aiohttp.ClientError, ConnectionError, asyncio.TimeoutError) as why:
                if time.monotonic() - last_seen > AWAY_SECONDS:
                    raise self._gone(why) from why
            await asyncio.sleep(REDIAL_SECONDS)

    async def stop(self, job_id: str, reason: str, *, now: bool = False) -> None:
        """Asks the job to save a checkpoint and leave; `now`, or a second call, ends it at once.

        Raises:
            FleetError: the job is not known, or the coordinator is gone.
        """
        request = api.StopRequest(reason=reason, now=now)
        await self._ask("POST", f"{api.JOBS}/{job_id}/stop", request, answer=api.Submitted)

    async def _send_missing(
        self, manifest: Manifest, store: BlobStore, tell: Callable[[Progress], None]
    ) -> None:
        """Sends every blob that the coordinator lacks, telling how far it is after each chunk."""
        answer = await self._ask("POST", api.MISSING, manifest, answer=api.MissingBlobs)
        total, sent = sum(entry.size for entry in answer.entries), 0
        for entry in answer.entries:

            def count(size: int, path: str = entry.path) -> None:
                nonlocal sent
                sent += size
                tell(Progress(path=path, sent=sent, total=total))

            await self._put(
                f"{api.BLOBS}/{entry.sha256}", store.path(entry.sha256), entry.size, count
            )

    async def _put(self, url: str, path: Path, size: int, count: Callable[[int], None]) -> None:
        try:
            async with self._session.put(
                url,
                data=chunks(path, count),
                headers={"Content-Length": str(size)},
                timeout=aiohttp.ClientTimeout(sock_connect=ASK_SECONDS, sock_read=600),
            ) as answer:
                await check(answer)
        except (aiohttp.ClientError, ConnectionError, asyncio.TimeoutError) as why:
            raise self._gone(why) from why

    async def _ask(
        self, method: str, url: str, body: msgspec.Struct | None = None, *, answer: type[Answer]
    ) -> Answer:
        """One small request with JSON both ways."""
        data = None if body is None else msgspec.json.encode(body)
        try:
            async with self._session.request(method, url, data=data) as response:
                await check(response)
                return msgspec.json.decode(await response.read(), type=answer)
        except (aiohttp.ClientError, ConnectionError, asyncio.TimeoutError) as why:
            raise self._gone(why) from why

    async def _listen(self, job_id: str, position: int) -> AsyncIterator[Numbered]:
        """The stream over one connection, until it closes."""
        url = f"{api.JOBS}/{job_id}/stream"
        async with self._session.get(
            url,
            params={"position": str(position)},
            timeout=aiohttp.ClientTimeout(sock_connect=ASK_SECONDS, sock_read=api.STREAM_SILENCE),
        ) as answer:
            await check(answer)
            async for line in _lines(answer.content):
                yield msgspec.json.decode(line, type=Numbered)

    @property
    def _session(self) -> aiohttp.ClientSession:
        assert self._http is not None, "use FleetClient in an `async with`"
        return self._http

    def _gone(self, why: BaseException) -> FleetError:
        said = str(why) or type(why).__name__
        return FleetError(
            f"the coordinator at {self.fleet.host}:{self.fleet.port} can't be reached: {said}",
            hint="look at its log, or start a fleet: llamaforge up",
        )


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The lines of an answer, however long; empty ones only keep the connection alive."""
    rest = b""
    async for data in content.iter_any():
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            if line:
                yield line
