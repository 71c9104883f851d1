"""The coordinator's HTTP face: routes, the token, and errors as JSON for people."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from aiohttp import web

from llamaforge.bundle.manifest import Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.coordinator.board import Board
from llamaforge.coordinator.record import JobRecord
from llamaforge.coordinator.worker_link import serve_worker
from llamaforge.errors import FleetError, IntegrityError, LlamaForgeError, UserError
from llamaforge.wire import api
from llamaforge.wire.auth import allowed
from llamaforge.wire.transfer import CHUNK, into_store

MOST_BYTES = 1 << 40
"""Bytes in the largest file that is taken: no model's shard comes near."""

MOST_STRANGERS = 256
"""Addresses that the log names for coming without the token."""

log = logging.getLogger("llamaforge.coordinator")
Body = TypeVar("Body")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Answers clients and workers.

    Args:
        board: the jobs and nodes.
        store: the coordinator's blobs.
        token: what every request must carry.
        status: tells what `GET /v1/status` answers.
    """

    def __init__(
        self, board: Board, store: BlobStore, token: str, status: Callable[[], api.Status]
    ) -> None:
        self._board, self._store, self._token, self._status = board, store, token, status
        self._strangers: set[str] = set()

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=api.BODY_LIMIT, middlewares=[self._guard])
        job = f"{api.JOBS}/{{job}}"
        checkpoint = f"{job}/checkpoints/{{name}}"
        app.add_routes(
            [
                web.get(api.HEALTH, self._health),
                web.get(api.STATUS, self._get_status),
                web.get(api.WORKERS, self._worker),
                web.post(api.MISSING, self._missing),
                web.put(f"{api.BLOBS}/{{sha256}}", self._put_blob),
                web.get(f"{api.BLOBS}/{{sha256}}", self._get_blob),
                web.post(api.JOBS, self._submit),
                web.get(job, self._job),
                web.post(f"{job}/stop", self._stop),
                web.get(f"{job}/stream", self._stream),
                web.put(f"{job}/artifacts/{{path:.+}}", self._artifact),
                web.post(checkpoint, self._begin_checkpoint),
                web.put(f"{checkpoint}/{{path:.+}}", self._checkpoint_file),
                web.post(f"{checkpoint}/accept", self._accept_checkpoint),
            ]
        )
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuses strangers; turns our errors into answers that a person can read."""
        if request.path != api.HEALTH and not allowed(request.headers, self._token):
            self._tell_of_stranger(request)
            return _trouble(401, FleetError("the fleet's token is missing or wrong"))
        try:
            return await handler(request)
        except UserError as why:
            return _trouble(400, why)
        except IntegrityError as why:
            return _trouble(422, why)
        except LlamaForgeError as why:
            return _trouble(404, why)
        except msgspec.MsgspecError as why:
            return _trouble(400, FleetError(f"the request can't be understood: {why}"))
        except ConnectionError:
            raise  # the client has left
        except OSError as why:
            log.warning("%s %s: %s", request.method, request.path, why)
            return _trouble(507, FleetError(f"the coordinator can't keep it: {why}"))

    def _tell_of_stranger(self, request: web.Request) -> None:
        """One line in the log for each address; most are workers with a token of another fleet."""
        address = request.remote or "?"
        if address not in self._strangers and len(self._strangers) < MOST_STRANGERS:
            self._strangers.add(address)
            what = "a worker" if request.path == api.WORKERS else "somebody"
            log.warning("%s at %s came without the fleet's token, and was refused", what, address)

    # ── the fleet ─────────────────────────────────────────────────────────────────────────────

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _get_status(self, _: web.Request) -> web.Response:
        return _json(self._status())

    async def _worker(self, request: web.Request) -> web.StreamResponse:
        return await serve_worker(request, self._board.nodes)

    # ── blobs ─────────────────────────────────────────────────────────────────────────────────

    async def _missing(self, request: web.Request) -> web.Response:
        manifest = msgspec.json.decode(await request.read(), type=Manifest)
        manifest.check()
        return _json(api.MissingBlobs(entries=self._store.missing(manifest)))

    async def _put_blob(self, request: web.Request) -> web.Response:
        sha256, size = request.match_info["sha256"], _size(request)
        await into_store(self._store, sha256, size, request.content.iter_chunked(CHUNK))
        return web.Response(status=201)

    async def _get_blob(self, request: web.Request) -> web.StreamResponse:
        return web.FileResponse(self._store.path(request.match_info["sha256"]), chunk_size=CHUNK)

    # ── jobs ──────────────────────────────────────────────────────────────────────────────────

    def _record(self, request: web.Request) -> JobRecord:
        return self._board.job(request.match_info["job"])

    async def _submit(self, request: web.Request) -> web.Response:
        submission = msgspec.json.decode(await request.read(), type=api.Submission)
        submission.manifest.check()
        if missing := self._store.missing(submission.manifest):
            raise IntegrityError(
                f"{missing[0].path} has not arrived or has changed",
                hint="run the same command again",
            )
        return _json(api.Submitted(job_id=self._board.submit(submission).id))

    async def _job(self, request: web.Request) -> web.Response:
        return _json(self._record(request).status())

    async def _stop(self, request: web.Request) -> web.Response:
        wish = msgspec.json.decode(await request.read(), type=api.StopRequest)
        record = self._record(request)
        self._board.stop(record.id, wish.reason, now=wish.now)
        return _json(api.Submitted(job_id=record.id))

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        record = self._record(request)
        text = request.query.get("position", "0")
        position = int(text) if text.isdecimal() else 0
        answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await answer.prepare(request)
        async for line in record.stream.read(position, api.STREAM_BEAT):
            await answer.write(line)
        await answer.write_eof()
        return answer

    # ── what rank 0's worker sends ────────────────────────────────────────────────────────────

    def _running(self, request: web.Request) -> JobRecord:
        record = self._record(request)
        if record.state.final:
            raise FleetError(f"job {record.id!r} has ended already: it is {record.state.value}")
        sender, now = request.headers.get(api.GENERATION), self._board.generation(record.id)
        if sender is not None and sender != str(now):
            # whoever was cut off may still train, and must not touch what the others go on from
            raise FleetError(f"generation {sender} of job {record.id!r} is over")
        return record

    async def _artifact(self, request: web.Request) -> web.Response:
        folder, path = self._running(request).folder, request.match_info["path"]
        await folder.artifact(path, _size(request), request.content.iter_chunked(CHUNK))
        return web.Response(status=201)

    async def _begin_checkpoint(self, request: web.Request) -> web.Response:
        self._running(request).folder.begin_checkpoint(request.match_info["name"])
        return web.Response(status=201)

    async def _checkpoint_file(self, request: web.Request) -> web.Response:
        folder, names = self._running(request).folder, request.match_info
        stream = request.content.iter_chunked(CHUNK)
        await folder.checkpoint_file(names["name"], names["path"], _size(request), stream)
        return web.Response(status=201)

    async def _accept_checkpoint(self, request: web.Request) -> web.Response:
        record, name = self._running(request), request.match_info["name"]
        path = await record.folder.accept_checkpoint(name)
        record.folder.event("checkpoint_kept", f"{name} stands in {path.parent}", path=str(path))
        return web.Response(status=201)


def _json(body: msgspec.Struct, status: int = 200) -> web.Response:
    data = msgspec.json.encode(body)
    return web.Response(body=data, status=status, content_type="application/json")


def _trouble(status: int, why: LlamaForgeError) -> web.Response:
    user_error = isinstance(why, UserError)
    return _json(api.Trouble(message=why.message, hint=why.hint, user_error=user_error), status)


def _size(request: web.Request) -> int:
    """How long the body says it is. Raises IntegrityError when it doesn't, or is absurd."""
    size = request.content_length
    if size is None or size > MOST_BYTES:
        raise IntegrityError(f"a file needs a Content-Length of at most {MOST_BYTES} bytes")
    return size
