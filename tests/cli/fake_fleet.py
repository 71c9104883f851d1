"""A coordinator that only remembers and tells, in a thread; for verbs that ask the fleet.

It can be taken away and brought back with what it remembers, as a coordinator with a ledger is.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from llamaforge.spec.states import JobState, NodeState
from llamaforge.wire import api, fleet_file
from llamaforge.wire.fleet_file import FleetFile
from llamaforge.wire.updates import Ended, JobUpdate, Numbered

NOW = 1_700_000_000.0


def a_job(job_id: str, state: JobState = JobState.RUNNING, **more: Any) -> api.JobStatus:
    plain = {"since": NOW, "submitted": NOW, "output_dir": f"/runs/{job_id}", "total_steps": 4}
    return api.JobStatus(id=job_id, state=state, **{**plain, **more})


def a_node(name: str, state: NodeState = NodeState.READY, **more: Any) -> api.NodeStatus:
    plain = {"since": NOW, "cores": 4, "memory": 8 << 30}
    return api.NodeStatus(name=name, state=state, **{**plain, **more})


class FakeFleet:
    """Remembers jobs, streams, files, nodes and events; says what it was asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.jobs: dict[str, api.JobStatus] = {}
        self.streams: dict[str, list[JobUpdate]] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.nodes: list[api.NodeStatus] = []
        self.events: list[api.Event] = []
        self.keys: dict[str, str] = {}
        self.asked: list[tuple[str, str, Any]] = []
        """Method, path and decoded body of every request."""
        self.drop_next_submission = False
        """Takes the next submission, and dies before it answers."""
        self.beat = 0.1
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runner: web.AppRunner | None = None
        self._port = 0
        self.start()

    # ── life ──────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Listens, at the same place as before."""
        self._do(self._start())
        self.write_file()

    def write_file(self, **more: Any) -> None:
        plain = {
            "host": "127.0.0.1",
            "port": self._port,
            "pid": os.getpid(),
            "uid": os.getuid(),
            "socket": str(self.root / "s"),
        }
        fleet_file.write(self.file, FleetFile(**{**plain, **more}))

    def stop(self) -> None:
        """Goes away at once, in the middle of whatever it was saying."""
        self._do(self._stop())

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def file(self) -> Path:
        return self.root / "fleet.json"

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _start(self) -> None:
        app = web.Application()
        job = f"{api.JOBS}/{{job}}"
        app.add_routes(
            [
                web.get(api.STATUS, self._status),
                web.get(api.JOBS, self._jobs),
                web.post(api.JOBS, self._submit),
                web.post(api.MISSING, self._missing),
                web.get(job, self._job),
                web.post(f"{job}/stop", self._noted),
                web.post(f"{job}/resume", self._resume),
                web.get(f"{job}/stream", self._stream),
                web.get(f"{job}/files", self._files),
                web.get(f"{job}/files/{{path:.+}}", self._file),
                web.post(f"{api.NODES}/{{node}}", self._noted),
                web.get(api.EVENTS, self._events),
            ]
        )
        runner = self._runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        await web.UnixSite(runner, str(self.root / "s")).start()
        site = web.TCPSite(runner, "127.0.0.1", self._port)
        await site.start()
        self._port = runner.addresses[-1][1]

    async def _stop(self) -> None:
        if self._runner is not None:
            assert self._runner.server is not None
            for connection in list(self._runner.server.connections):
                if connection.transport is not None:
                    connection.transport.abort()
            await self._runner.cleanup()
            self._runner = None

    # ── answers ───────────────────────────────────────────────────────────────────────────────

    async def _note(self, request: web.Request) -> Any:
        data = await request.read()
        body = msgspec.json.decode(data) if data else None
        self.asked.append((request.method, request.path_qs, body))
        return body

    def known(self, request: web.Request) -> str:
        job_id = request.match_info["job"]
        if job_id not in self.jobs:
            trouble = api.Trouble(message=f"no job {job_id!r}")
            raise web.HTTPNotFound(body=msgspec.json.encode(trouble))
        return job_id

    async def _status(self, request: web.Request) -> web.Response:
        await self._note(request)
        jobs = tuple(self.jobs.values())
        nodes = tuple(self.nodes)
        return said(
            api.Status(coordinator="c", version="0", pid=1, started=NOW, nodes=nodes, jobs=jobs)
        )

    async def _jobs(self, request: web.Request) -> web.Response:
        await self._note(request)
        every = request.query.get("all") == "1"
        return said(
            api.Jobs(jobs=tuple(j for j in self.jobs.values() if every or not j.state.final))
        )

    async def _job(self, request: web.Request) -> web.Response:
        await self._note(request)
        job_id = self.known(request)
        length = len(self.streams.get(job_id, []))
        return said(msgspec.structs.replace(self.jobs[job_id], updates=length))

    async def _missing(self, request: web.Request) -> web.Response:
        await self._note(request)
        return said(api.MissingBlobs(entries=()))

    async def _submit(self, request: web.Request) -> web.Response:
        body = await self._note(request)
        submission = msgspec.convert(body, api.Submission)
        if submission.key not in self.keys:
            job_id = submission.job_id
            self.keys[submission.key] = job_id
            self.jobs[job_id] = a_job(job_id, JobState.QUEUED)
            self.streams.setdefault(job_id, [])
        if self.drop_next_submission:
            self.drop_next_submission = False
            assert request.transport is not None
            request.transport.abort()
        return said(api.Submitted(job_id=self.keys[submission.key]))

    async def _noted(self, request: web.Request) -> web.Response:
        await self._note(request)
        return said(api.Submitted(job_id=request.match_info.get("job", "")))

    async def _resume(self, request: web.Request) -> web.Response:
        await self._note(request)
        job = self.jobs[self.known(request)]
        self.jobs[job.id] = msgspec.structs.replace(job, state=JobState.QUEUED)
        return said(api.Submitted(job_id=job.id))

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        await self._note(request)
        updates = self.streams[self.known(request)]
        kinds = request.query.get("kinds", "").split(",")
        position = int(request.query["position"])
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            while position < len(updates):
                update = updates[position]
                if kinds == [""] or msgspec.to_builtins(update)["type"] in kinds:
                    line = Numbered(number=position, update=update)
                    await answer.write(msgspec.json.encode(line) + b"\n")
                position += 1
            if updates and isinstance(updates[-1], Ended):
                return answer
            await asyncio.sleep(self.beat)
            await answer.write(b"\n")

    async def _files(self, request: web.Request) -> web.Response:
        await self._note(request)
        files = self.files.get(self.known(request), {})
        every = (api.JobFile(path=path, size=len(data)) for path, data in files.items())
        return said(api.JobFiles(files=tuple(every)))

    async def _file(self, request: web.Request) -> web.Response:
        await self._note(request)
        return web.Response(body=self.files[self.known(request)][request.match_info["path"]])

    async def _events(self, request: web.Request) -> web.StreamResponse:
        await self._note(request)
        query = request.query
        after, follow = int(query.get("after", "0")), query.get("follow") == "1"
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            for event in self.events[after:]:
                after = event.number
                fits = query.get("kind") in (None, event.kind)
                if fits and query.get("subject") in (None, event.subject):
                    await answer.write(msgspec.json.encode(event) + b"\n")
            if not follow:
                return answer
            await asyncio.sleep(self.beat)
            await answer.write(b"\n")


def said(body: msgspec.Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(body))
