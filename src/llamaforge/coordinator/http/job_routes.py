"""Jobs over HTTP: submit, list, follow, stop, resume."""

from __future__ import annotations

import msgspec
from aiohttp import web

from llamaforge.bundle.store import BlobStore
from llamaforge.coordinator.board import Board
from llamaforge.coordinator.http.answers import as_json
from llamaforge.coordinator.http.gate import CALLER, Caller, Refused
from llamaforge.coordinator.record import JobRecord
from llamaforge.errors import IntegrityError, UserError
from llamaforge.spec.states import JobState
from llamaforge.wire import api


class JobRoutes:
    """Answers requests about jobs.

    Args:
        board: the jobs.
        store: the coordinator's blobs.
    """

    def __init__(self, board: Board, store: BlobStore) -> None:
        self._board, self._store = board, store

    def routes(self) -> list[web.RouteDef]:
        """What it answers."""
        job = f"{api.JOBS}/{{job}}"
        return [
            web.get(api.JOBS, self._list),
            web.post(api.JOBS, self._submit),
            web.get(job, self._job),
            web.post(f"{job}/stop", self._stop),
            web.post(f"{job}/resume", self._resume),
            web.get(f"{job}/stream", self._stream),
        ]

    def _record(self, request: web.Request) -> JobRecord:
        return self._board.job(request.match_info["job"])

    async def _list(self, request: web.Request) -> web.Response:
        wanted = {word for word in request.query.get("state", "").split(",") if word}
        if unknown := wanted - {state.value for state in JobState}:
            raise UserError(f"there is no state {sorted(unknown)[0]!r}")
        every = request.query.get("all") == "1" or bool(wanted)
        jobs = tuple(
            job.status()
            for job in self._board.jobs()
            if (every or not job.state.final) and (not wanted or job.state.value in wanted)
        )
        return as_json(api.Jobs(jobs=jobs))

    async def _submit(self, request: web.Request) -> web.Response:
        submission = msgspec.json.decode(await request.read(), type=api.Submission)
        caller: Caller = request[CALLER]
        _check(submission, caller)
        if missing := self._store.missing(submission.manifest):
            raise IntegrityError(
                f"{missing[0].path} has not arrived or has changed",
                hint="run the same command again",
            )
        record = self._board.submit(submission, str(caller))
        return as_json(api.Submitted(job_id=record.id))

    async def _job(self, request: web.Request) -> web.Response:
        return as_json(self._record(request).status())

    async def _stop(self, request: web.Request) -> web.Response:
        wish = msgspec.json.decode(await request.read(), type=api.StopRequest)
        record = self._record(request)
        self._board.stop(record.id, wish.reason, now=wish.now, by=str(request[CALLER]))
        return as_json(api.Submitted(job_id=record.id))

    async def _resume(self, request: web.Request) -> web.Response:
        record = self._record(request)
        resumed = self._board.resume(record.id, str(request[CALLER]))
        return as_json(api.Submitted(job_id=resumed.id))

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        record = self._record(request)
        text = request.query.get("position", "0")
        position = int(text) if text.isdecimal() and len(text) < 16 else 0
        kinds = [kind for kind in request.query.get("kinds", "").split(",") if kind.isalpha()]
        answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await answer.prepare(request)
        async for line in record.stream.read(position, api.STREAM_BEAT, kinds):
            await answer.write(line)
        await answer.write_eof()
        return answer


def _check(submission: api.Submission, caller: Caller) -> None:
    """Refuses what no client of ours sends, and folders that the caller may not name."""
    if (submission.job is None) is (submission.script is None):
        raise UserError("a submission is a job or a script")
    submission.manifest.check()
    if (submission.output_dir or submission.checkpoint_dir) and not caller.own:
        raise Refused(
            403,
            f"{caller} may not choose folders on the coordinator's machine",
            hint="leave them to the coordinator, and fetch the results: llamaforge fetch JOB",
        )
