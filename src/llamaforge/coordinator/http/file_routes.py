"""Files over HTTP: blobs in and out, what rank 0's worker sends, and what people fetch."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
from aiohttp import web

from llamaforge.bundle.manifest import Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.coordinator.blob_keeper import BlobKeeper
from llamaforge.coordinator.board import Board
from llamaforge.coordinator.folder import inside
from llamaforge.coordinator.http.answers import as_json, check_size, size_of
from llamaforge.coordinator.http.gate import CALLER, Caller, Refused
from llamaforge.coordinator.record import JobRecord
from llamaforge.errors import FleetError
from llamaforge.wire import api
from llamaforge.wire.transfer import CHUNK, STANDS, into_store, range_of

MOST_FILES = 10_000
"""Files of a job's folder that are listed."""


class FileRoutes:
    """Answers requests about files.

    Args:
        board: the jobs.
        store: the coordinator's blobs.
        keeper: makes room for more of them; None: nobody does.
    """

    def __init__(self, board: Board, store: BlobStore, keeper: BlobKeeper | None = None) -> None:
        self._board, self._store, self._keeper = board, store, keeper

    def routes(self) -> list[web.RouteDef]:
        """What it answers."""
        job = f"{api.JOBS}/{{job}}"
        checkpoint = f"{job}/checkpoints/{{name}}"
        return [
            web.post(api.MISSING, self._missing),
            web.put(f"{api.BLOBS}/{{sha256}}", self._put_blob),
            web.get(f"{api.BLOBS}/{{sha256}}", self._get_blob),
            web.put(f"{job}/artifacts/{{path:.+}}", self._artifact),
            web.post(checkpoint, self._begin_checkpoint),
            web.put(f"{checkpoint}/{{path:.+}}", self._checkpoint_file),
            web.post(f"{checkpoint}/accept", self._accept_checkpoint),
            web.get(f"{job}/files", self._files),
            web.get(f"{job}/files/{{path:.+}}", self._file),
        ]

    # ── blobs ─────────────────────────────────────────────────────────────────────────────────

    async def _missing(self, request: web.Request) -> web.Response:
        manifest = msgspec.json.decode(await request.read(), type=Manifest)
        manifest.check()
        missing = await asyncio.to_thread(self._store.missing, manifest)
        if self._keeper is not None and missing:
            await self._keeper.make_room(sum(entry.size for entry in missing))
        return as_json(api.MissingBlobs(entries=missing))

    async def _put_blob(self, request: web.Request) -> web.Response:
        sha256 = request.match_info["sha256"]
        start, size = range_of(size_of(request), request.headers.get("Content-Range"))
        stream = request.content.iter_chunked(CHUNK)
        await into_store(self._store, sha256, check_size(size), stream, start=start)
        return web.Response(status=201)

    async def _get_blob(self, request: web.Request) -> web.StreamResponse:
        sha256 = request.match_info["sha256"]
        if request.method == "HEAD":
            stands = await asyncio.to_thread(self._store.stands, sha256)
            return web.Response(headers={STANDS: str(stands)})
        return web.FileResponse(self._store.path(sha256), chunk_size=CHUNK)

    # ── what rank 0's worker sends ────────────────────────────────────────────────────────────

    def _running(self, request: web.Request) -> JobRecord:
        record = self._board.job(request.match_info["job"])
        if record.state.final:
            raise FleetError(f"job {record.id!r} has ended already: it is {record.state.value}")
        sender, now = request.headers.get(api.GENERATION), self._board.generation(record.id)
        if sender is not None and sender != str(now):
            # whoever was cut off may still train, and must not touch what the others go on from
            raise FleetError(f"generation {sender} of job {record.id!r} is over")
        caller: Caller = request[CALLER]
        holder = next((member.node for member in record.members), None)
        if caller.kind == "node" and caller.name != holder:
            raise Refused(403, f"{caller} does not run rank 0 of job {record.id!r}")
        return record

    async def _artifact(self, request: web.Request) -> web.Response:
        folder, path = self._running(request).folder, request.match_info["path"]
        await folder.artifact(path, size_of(request), request.content.iter_chunked(CHUNK))
        return web.Response(status=201)

    async def _begin_checkpoint(self, request: web.Request) -> web.Response:
        self._running(request).folder.begin_checkpoint(request.match_info["name"])
        return web.Response(status=201)

    async def _checkpoint_file(self, request: web.Request) -> web.Response:
        folder, names = self._running(request).folder, request.match_info
        stream = request.content.iter_chunked(CHUNK)
        await folder.checkpoint_file(names["name"], names["path"], size_of(request), stream)
        return web.Response(status=201)

    async def _accept_checkpoint(self, request: web.Request) -> web.Response:
        record, name = self._running(request), request.match_info["name"]
        path = await record.folder.accept_checkpoint(name)
        record.note("checkpoint_kept", f"{name} stands in {path.parent}", path=str(path))
        return web.Response(status=201)

    # ── what people fetch ─────────────────────────────────────────────────────────────────────

    async def _files(self, request: web.Request) -> web.Response:
        record = self._board.job(request.match_info["job"])
        found = sorted(_files(record.path), key=lambda file: file.path)
        return as_json(api.JobFiles(files=tuple(found[:MOST_FILES])))

    async def _file(self, request: web.Request) -> web.StreamResponse:
        record = self._board.job(request.match_info["job"])
        name = request.match_info["path"]
        path = inside(record.path, name)
        if not path.is_file() or path.is_symlink():
            raise FleetError(f"job {record.id!r} has no file {name!r}")
        return web.FileResponse(path, chunk_size=CHUNK)


def _files(root: Path) -> Iterator[api.JobFile]:
    """The files of a job's folder, without links and without those that are being written."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if not name.startswith(".") and path.is_file() and not path.is_symlink():
                relative = path.relative_to(root).as_posix()
                yield api.JobFile(path=relative, size=path.stat().st_size)
