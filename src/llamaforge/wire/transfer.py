"""Big files over HTTP: streamed in both directions, verified on arrival, never whole in memory.

A blob's upload that broke goes on where it was: `HEAD` on the blob says in the header `STANDS` how
many bytes stand at the other side, and `PUT` with a Content-Range brings the rest.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from llamaforge.bundle.pieces import SMALL, PieceFile
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import IntegrityError

CHUNK = 1 << 20
"""Bytes read, sent or written at a time."""
STANDS = "LlamaForge-Stands"
"""Header: how many bytes of a blob are there already, from its beginning on."""
LOCKED_SECONDS = 10.0
"""How long an upload waits for the end of another one of the same blob."""
_LOOK_SECONDS = 0.1
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", re.ASCII)


async def chunks(
    path: Path, on_chunk: Callable[[int], None] | None = None, *, start: int = 0
) -> AsyncIterator[bytes]:
    """Reads a file for sending, off the event loop.

    Args:
        path: the file.
        on_chunk: told the number of bytes of every chunk once it has been taken.
        start: first byte that is sent.
    """
    with path.open("rb") as file:
        file.seek(start)
        while data := await asyncio.to_thread(file.read, CHUNK):
            yield data
            if on_chunk is not None:
                on_chunk(len(data))


def range_headers(start: int, size: int) -> dict[str, str]:
    """The headers of an upload from byte `start` on."""
    length = {"Content-Length": str(size - start)}
    if start == 0:
        return length
    return {**length, "Content-Range": f"bytes {start}-{size - 1}/{size}"}


def range_of(length: int, content_range: str | None) -> tuple[int, int]:
    """Where an upload starts, and how many bytes the blob has.

    Args:
        length: the request's Content-Length.
        content_range: its Content-Range, where it has one.

    Raises:
        IntegrityError: the two contradict each other, or it does not go on to the end.
    """
    if content_range is None:
        return 0, length
    found = _RANGE.fullmatch(content_range)
    if found is not None:
        start, last, size = map(int, found.groups())
        if last == size - 1 and length == size - start and 0 <= start < size:
            return start, size
    raise IntegrityError(f"Content-Range {content_range[:80]!r} does not fit {length} bytes")


async def into_store(
    store: BlobStore, sha256: str, size: int, stream: AsyncIterator[bytes], *, start: int = 0
) -> None:
    """Writes a stream into a blob store. Of a big blob, what has arrived is kept when it breaks.

    Args:
        store: where to.
        sha256: the blob's digest.
        size: all its bytes.
        stream: the bytes from `start` on.
        start: how many came before and stand.

    Raises:
        IntegrityError: the bytes are not what was promised, or don't go on where the last ones
            ended; nothing is left behind.
        OSError: the disk is full or refuses.
    """
    pieces = await _pieces(store, sha256, size, start) if size >= SMALL or start else None
    if pieces is None:
        await _at_once(store, sha256, size, stream)
        return
    try:
        position, piece = start, pieces.piece
        async for data in stream:
            await asyncio.to_thread(pieces.write, position, data)
            before, position = position, position + len(data)
            for number in range(before // piece, position // piece):
                await asyncio.to_thread(pieces.mark, number)
        if position == size and size % piece:
            await asyncio.to_thread(pieces.mark, pieces.count - 1)
        elif position != size:
            raise ConnectionError(f"the upload ended after {position} of {size} bytes")
        await asyncio.to_thread(pieces.commit)
    finally:
        pieces.close()


async def _pieces(store: BlobStore, sha256: str, size: int, start: int) -> PieceFile | None:
    """Where the upload goes on; None: somebody else sends the same, and this one comes aside."""
    for _ in range(int(LOCKED_SECONDS / _LOOK_SECONDS)):
        pieces = await asyncio.to_thread(store.pieces, sha256, size)
        if pieces is None:
            await asyncio.sleep(_LOOK_SECONDS)
        elif start == pieces.prefix and len(pieces.missing) * pieces.piece >= size - start:
            return pieces
        elif start == 0:
            pieces.discard()  # whoever starts anew has his reasons
        else:
            stands = pieces.prefix
            pieces.close()
            raise IntegrityError(f"the upload goes on at byte {start}, and {stands} stand")
    if start:
        raise IntegrityError("somebody else is sending the same file", hint="try again later")
    return None


async def _at_once(store: BlobStore, sha256: str, size: int, stream: AsyncIterator[bytes]) -> None:
    blob = await asyncio.to_thread(store.receive, sha256, size)
    try:
        async for data in stream:
            await asyncio.to_thread(blob.write, data)
    except BaseException:
        blob.abort()
        raise
    await asyncio.to_thread(blob.commit)
