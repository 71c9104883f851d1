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
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Literal, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from llamaforge.bundle.manifest import Manifest
from llamaforge.bundle.pieces import SMALL
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import FleetError
from llamaforge.spec import wishes
from llamaforge.spec.job import Job
from llamaforge.wire import api, fleet_file
from llamaforge.wire.away import AWAY, Away
from llamaforge.wire.download import into_file
from llamaforge.wire.endpoint import Endpoint
from llamaforge.wire.fleet_file import FleetFile
from llamaforge.wire.refused import check
from llamaforge.wire.transfer import STANDS, chunks, range_headers
from llamaforge.wire.updates import Ended, JobUpdate, Numbered

ASK_SECONDS = 30.0
"""How long a small request may take."""
AWAY_SECONDS = 180.0
"""How long a coordinator that has gone away is dialled: its host may be starting again."""
PRIVATE_AWAY_SECONDS = 15.0
"""The same for a fleet that this process keeps itself."""
FILE_SECONDS = 600.0
"""How long a file may stand still on its way."""

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
        self.tell: Callable[[str], None] = lambda _: None
        """Is told when the coordinator is away for a while, and when it is back."""
        self._met = False
        self._http: aiohttp.ClientSession | None = None

    @classmethod
    def open(cls, path: Path | None = None) -> FleetClient:
        """The client of the fleet whose fleet file is at `path`; see `fleet_file.search`.

        Raises:
            FleetError: no fleet runs there.
        """
        fleet = fleet_file.search(path)
        if fleet is None:
            raise FleetError(
                f"no fleet runs here ({path or fleet_file.default_path()})",
                hint="start one: llamaforge up\n"
                "a fleet on another machine: llamaforge login HOST:PORT\n"
                "a coordinator service on this machine answers root and the group llamaforge\n"
                "what this machine's worker does: systemctl status llamaforge-worker",
            )
        return cls(fleet)

    async def __aenter__(self) -> FleetClient:
        timeout = aiohttp.ClientTimeout(total=ASK_SECONDS)
        self._http = Endpoint.of(self.fleet).open(timeout=timeout)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    @property
    def keeps_folders(self) -> bool:
        """Whether jobs' folders are the coordinator's own: it runs as somebody else, or elsewhere.

        Their files are fetched then.
        """
        return bool(self.fleet.identity) or self.fleet.uid not in (-1, os.getuid())

    async def status(self) -> api.Status:
        """The fleet's nodes and jobs. Raises FleetError when the coordinator is gone."""
        return await self._ask("GET", api.STATUS, answer=api.Status)

    async def jobs(self, *, ended: bool = True) -> tuple[api.JobStatus, ...]:
        """The coordinator's jobs, oldest first; without `ended` those that still wait or run."""
        params = {"all": "1"} if ended else {}
        said = await self._through_restarts(lambda: self._request("GET", api.JOBS, params=params))
        return msgspec.json.decode(said, type=api.Jobs).jobs

    async def job(self, job_id: str) -> api.JobStatus:
        """One job. Raises FleetError when it is not known or the coordinator is gone."""
        said = await self._through_restarts(lambda: self._request("GET", _job(job_id)))
        return msgspec.json.decode(said, type=api.JobStatus)

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
        await self._send_missing(keyed.manifest, store, on_progress or (lambda _: None))
        answer = await self._through_restarts(lambda: self._request("POST", api.JOBS, keyed))
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
        away, ended = self._absence(), False
        while True:
            try:
                async for numbered in self._listen(job_id, position, kinds, away):
                    position = numbered.number + 1
                    ended = isinstance(numbered.update, Ended)
                    yield numbered
                if ended:  # a job that is resumed goes on after its end, and so does its stream
                    return
            except AWAY as why:
                if ended:
                    return
                await away.wait(why)
            else:
                if await self._is_over(job_id, position):
                    return
                await away.pause()

    async def _is_over(self, job_id: str, position: int) -> bool:
        """Whether a job has ended with no update from this number on."""
        try:
            job = await self.job(job_id)
        except FleetError:
            return False  # the coordinator is just leaving, or the stream's next answer tells
        return job.state.final and job.updates <= position

    async def history(self, job_id: str) -> AsyncGenerator[Numbered, None]:
        """The updates that the job has at the time of the call, from the first one on."""
        length = (await self.job(job_id)).updates
        if length == 0:
            return
        async with aclosing(self.stream(job_id)) as stream:
            async for numbered in stream:
                yield numbered
                if numbered.number >= length - 1:
                    return

    async def stop(self, job_id: str, reason: str, *, now: bool = False) -> None:
        """Asks the job to save a checkpoint and leave; `now`, or a second call, ends it at once.

        Raises:
            FleetError: the job is not known, or the coordinator is gone.
        """
        request = api.StopRequest(reason=reason, now=now)
        await self._ask("POST", f"{_job(job_id)}/stop", request, answer=api.Submitted)

    async def resume(self, job_id: str) -> None:
        """Queues a stopped or failed job again; it goes on from its newest checkpoint.

        Raises:
            UserError: it can't be resumed, such as one that still runs.
            FleetError: the job is not known, or the coordinator is gone.
        """
        await self._ask("POST", f"{_job(job_id)}/resume", answer=api.Submitted)

    async def files(self, job_id: str) -> tuple[api.JobFile, ...]:
        """What is in the job's folder on the coordinator."""
        url = f"{_job(job_id)}/files"
        said = await self._through_restarts(lambda: self._request("GET", url))
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
        url = f"{_job(job_id)}/files/{quote(path, safe='/')}"
        count = on_chunk or (lambda _: None)
        await self._through_restarts(lambda: self._get_file(url, into, count))

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
        await self._through_restarts(
            lambda: self._request("POST", f"{api.NODES}/{quote(node)}", request)
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
        away = self._absence()
        while True:
            asked, before = {"kind": kind, "subject": subject, "after": str(after)}, after
            asked["follow"] = "1" if follow else ""
            try:
                async for line in self._lines(
                    api.EVENTS, {key: text for key, text in asked.items() if text}, away
                ):
                    event = msgspec.json.decode(line, type=api.Event)
                    after = event.number
                    yield event
                if not follow and after == before:  # an answer holds a bounded number of them
                    return
            except AWAY as why:
                await away.wait(why)
            else:
                if follow:
                    await away.pause()

    async def _send_missing(
        self, manifest: Manifest, store: BlobStore, tell: Callable[[Progress], None]
    ) -> None:
        """Sends every blob that the coordinator lacks, telling how far it is after each chunk."""
        said = await self._through_restarts(lambda: self._request("POST", api.MISSING, manifest))
        answer = msgspec.json.decode(said, type=api.MissingBlobs)
        total, sent = sum(entry.size for entry in answer.entries), 0
        for entry in answer.entries:

            def count(size: int, path: str = entry.path) -> None:
                nonlocal sent
                sent += size
                tell(Progress(path=path, sent=sent, total=total))

            url, path, size = f"{api.BLOBS}/{entry.sha256}", store.path(entry.sha256), entry.size
            await self._through_restarts(
                lambda url=url, path=path, size=size, count=count: (  # type: ignore[misc]
                    self._put(url, path, size, count)
                )
            )

    async def _put(self, url: str, path: Path, size: int, count: Callable[[int], None]) -> None:
        """Sends a blob, from where an upload that broke has come to."""
        with _Counted(count) as counted:
            start = await self._stands(url) if size >= SMALL else 0
            counted(start)
            if start == size > 0:  # an empty file has to be sent, too
                return
            async with self._session.put(
                url,
                data=chunks(path, counted, start=start),
                headers=range_headers(start, size),
                timeout=aiohttp.ClientTimeout(sock_connect=ASK_SECONDS, sock_read=FILE_SECONDS),
            ) as answer:
                await self._check(answer)

    async def _stands(self, url: str) -> int:
        """Bytes of a blob that the coordinator has."""
        async with self._session.head(url) as answer:
            await self._check(answer)
            return int(answer.headers.get(STANDS, "0"))

    async def _get_file(self, url: str, into: Path, count: Callable[[int], None]) -> None:
        timeout = aiohttp.ClientTimeout(sock_connect=ASK_SECONDS, sock_read=FILE_SECONDS)
        with _Counted(count) as counted:
            async with self._session.get(url, timeout=timeout) as answer:
                await self._check(answer)
                await into_file(into, answer.content.iter_any(), counted)

    async def _ask(
        self,
        method: str,
        url: str,
        body: msgspec.Struct | None = None,
        *,
        answer: type[Answer],
    ) -> Answer:
        """One small request with JSON both ways, which is not repeated."""
        try:
            return msgspec.json.decode(await self._request(method, url, body), type=answer)
        except AWAY as why:
            raise self._gone(why) from why

    async def _request(
        self,
        method: str,
        url: str,
        body: msgspec.Struct | None = None,
        params: dict[str, str] | None = None,
    ) -> bytes:
        """One small request; a lost connection raises as it is."""
        data = None if body is None else msgspec.json.encode(body)
        async with self._session.request(method, url, data=data, params=params) as response:
            await self._check(response)
            return await response.read()

    async def _listen(
        self, job_id: str, position: int, kinds: Iterable[str], away: Away
    ) -> AsyncIterator[Numbered]:
        """The stream over one connection, until it closes."""
        params = {"position": str(position)}
        if wanted := ",".join(kinds):
            params["kinds"] = wanted
        async for line in self._lines(f"{_job(job_id)}/stream", params, away):
            yield msgspec.json.decode(line, type=Numbered)

    async def _lines(self, url: str, params: dict[str, str], away: Away) -> AsyncIterator[bytes]:
        """The lines of an answer that may last, over one connection."""
        timeout = aiohttp.ClientTimeout(sock_connect=ASK_SECONDS, sock_read=api.STREAM_SILENCE)
        async with self._session.get(url, params=params, timeout=timeout) as answer:
            await self._check(answer)
            away.reached()
            async for line in _lines(answer.content):
                yield line

    async def _check(self, answer: aiohttp.ClientResponse) -> None:
        """Passes a good answer; one that is just starting counts as away."""
        if answer.status == 503 and self._met:
            raise ConnectionError("it is starting or stopping")
        await check(answer)
        self._met = True

    async def _through_restarts(self, action: Callable[[], Awaitable[Answer]]) -> Answer:
        """Does it again while the coordinator is away. Only for what may be done twice."""
        away = self._absence()
        while True:
            try:
                result = await action()
            except AWAY as why:
                await away.wait(why)
            else:
                away.reached()
                return result

    def _absence(self) -> Away:
        seconds = AWAY_SECONDS if self.keeper is None else PRIVATE_AWAY_SECONDS
        # Whom nobody has reached yet is not away: the address or the fleet may be wrong.
        return Away(lambda: seconds if self._met else 0.0, self.tell, self._gone)

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


class _Counted:
    """Counts bytes on their way, and takes them back when the way was in vain."""

    def __init__(self, count: Callable[[int], None]) -> None:
        self._count, self._sum = count, 0

    def __call__(self, size: int) -> None:
        self._sum += size
        self._count(size)

    def __enter__(self) -> _Counted:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None and self._sum:
            self._count(-self._sum)


def _job(job_id: str) -> str:
    return f"{api.JOBS}/{quote(job_id, safe='')}"


def _absolute(folder: Path | None) -> str:
    return "" if folder is None else str(folder.absolute())
