"""The worker's file transfers: blobs from the coordinator, checkpoints and artifacts to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from urllib.parse import quote

import aiohttp

from llamaforge.bundle.manifest import Entry, Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import FleetError
from llamaforge.wire import api
from llamaforge.wire.auth import header
from llamaforge.wire.refused import check
from llamaforge.wire.transfer import CHUNK, chunks, into_store

_TIMEOUT = aiohttp.ClientTimeout(sock_connect=30, sock_read=600)
TRIES = 5
"""A transfer is begun this often before it counts as failed."""
FIRST_PAUSE = 0.5
"""Seconds before the second try; doubled each time."""


class CoordinatorHttp:
    """Transfers with one coordinator; an async context manager.

    Args:
        url: root of its HTTP paths.
        token: the fleet's.
        generation: whose files are sent; those of one that is over are refused.
    """

    def __init__(self, url: str, token: str, *, generation: int | None = None) -> None:
        headers = header(token)
        if generation is not None:
            headers[api.GENERATION] = str(generation)
        self._http = aiohttp.ClientSession(url, headers=headers, timeout=_TIMEOUT)

    async def __aenter__(self) -> CoordinatorHttp:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def fetch_missing(self, manifest: Manifest, store: BlobStore) -> tuple[Entry, ...]:
        """Fetches the blobs that the store lacks.

        Returns:
            What was fetched.

        Raises:
            FleetError: the coordinator is gone or doesn't have one.
            IntegrityError: a blob is not what its digest promises.
            OSError: the disk is full or refuses.
        """
        entries = await asyncio.to_thread(store.missing, manifest)
        for entry in entries:
            await _again(f"{entry.path} could not be fetched", partial(self._fetch, store, entry))
        return entries

    async def send_checkpoint(self, job_id: str, folder: Path) -> None:
        """Sends a checkpoint folder; the coordinator verifies and accepts it.

        Raises:
            FleetError: it was refused, or the coordinator is gone.
            OSError: a file can't be read.
        """
        base = f"{api.JOBS}/{job_id}/checkpoints/{folder.name}"
        await self._post(base)
        for path in _files(folder):
            await self._put(f"{base}/{quote(path.relative_to(folder).as_posix())}", path)
        await self._post(f"{base}/accept")

    async def send_artifacts(self, job_id: str, folder: Path) -> None:
        """Sends all files of the artifacts folder, `proof.json` last; errors as above."""
        paths = sorted(_files(folder), key=lambda path: path.name == "proof.json")
        for path in paths:
            relative = quote(path.relative_to(folder).as_posix())
            await self._put(f"{api.JOBS}/{job_id}/artifacts/{relative}", path)

    async def _fetch(self, store: BlobStore, entry: Entry) -> None:
        if store.has(entry.sha256, entry.size):  # another worker with the same cache was quicker
            return
        plain = {"Accept-Encoding": "identity"}  # never a .gz that stands beside the file
        async with self._http.get(f"{api.BLOBS}/{entry.sha256}", headers=plain) as answer:
            await check(answer)
            await into_store(store, entry.sha256, entry.size, answer.content.iter_chunked(CHUNK))

    async def _put(self, url: str, path: Path) -> None:
        async def put() -> None:
            headers = {"Content-Length": str(path.stat().st_size)}
            async with self._http.put(url, data=chunks(path), headers=headers) as answer:
                await check(answer)

        await _again(f"{path.name} could not be sent", put)

    async def _post(self, url: str) -> None:
        async def post() -> None:
            async with self._http.post(url) as answer:
                await check(answer)

        await _again("the coordinator did not answer", post)


async def _again(what: str, transfer: Callable[[], Awaitable[None]]) -> None:
    """Begins a transfer anew while the connection breaks. A refusal is final."""
    for attempt in range(TRIES):
        try:
            await transfer()
            return
        except (aiohttp.ClientError, ConnectionError, asyncio.TimeoutError) as why:
            if attempt == TRIES - 1:
                raise FleetError(f"{what}: {str(why) or type(why).__name__}") from why
            await asyncio.sleep(FIRST_PAUSE * 2**attempt)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
