"""A client's files on their way: bundles to the coordinator, results from it, through restarts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import aiohttp
import msgspec

from llamaforge.bundle.manifest import Manifest
from llamaforge.bundle.pieces import SMALL
from llamaforge.bundle.store import BlobStore
from llamaforge.wire import api
from llamaforge.wire.connection import ASK_SECONDS, Connection
from llamaforge.wire.download import into_file
from llamaforge.wire.transfer import STANDS, chunks, range_headers

FILE_SECONDS = 600.0
"""How long a file may stand still on its way."""
_TIMEOUT = aiohttp.ClientTimeout(sock_connect=ASK_SECONDS, sock_read=FILE_SECONDS)


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the upload of a bundle is."""

    path: str
    """Logical path of the file that is being sent."""
    sent: int
    """Bytes of all files sent so far."""
    total: int
    """Bytes of all files that the coordinator lacked."""


async def send_missing(
    connection: Connection,
    manifest: Manifest,
    store: BlobStore,
    tell: Callable[[Progress], None],
) -> None:
    """Sends every blob that the coordinator lacks, telling how far it is after each chunk.

    Raises:
        FleetError: the coordinator stays away or refuses.
        IntegrityError: a file has changed since it was added to the store.
    """
    said = await connection.through_restarts(
        lambda: connection.request("POST", api.MISSING, manifest)
    )
    answer = msgspec.json.decode(said, type=api.MissingBlobs)
    total, sent = sum(entry.size for entry in answer.entries), 0
    for entry in answer.entries:

        def count(size: int, path: str = entry.path) -> None:
            nonlocal sent
            sent += size
            tell(Progress(path=path, sent=sent, total=total))

        await _send(connection, entry.sha256, store.path(entry.sha256), entry.size, count)


async def get_file(
    connection: Connection, url: str, into: Path, count: Callable[[int], None]
) -> None:
    """Copies a file from the coordinator; see `FleetClient.fetch`."""

    async def get() -> None:
        with _Counted(count) as counted:
            async with connection.http.get(url, timeout=_TIMEOUT) as answer:
                await connection.check(answer)
                await into_file(into, answer.content.iter_any(), counted)

    await connection.through_restarts(get)


async def _send(
    connection: Connection, sha256: str, path: Path, size: int, count: Callable[[int], None]
) -> None:
    """Sends a blob, from where an upload that broke has come to."""
    url = f"{api.BLOBS}/{sha256}"

    async def put() -> None:
        with _Counted(count) as counted:
            start = await _stands(connection, url) if size >= SMALL else 0
            counted(start)
            if start == size > 0:  # an empty file has to be sent, too
                return
            async with connection.http.put(
                url,
                data=chunks(path, counted, start=start),
                headers=range_headers(start, size),
                timeout=_TIMEOUT,
            ) as answer:
                await connection.check(answer)

    await connection.through_restarts(put)


async def _stands(connection: Connection, url: str) -> int:
    """Bytes of a blob that the coordinator has."""
    async with connection.http.head(url) as answer:
        await connection.check(answer)
        return int(answer.headers.get(STANDS, "0"))


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
