"""Big files over HTTP: streamed in both directions, verified on arrival, never whole in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from llamaforge.bundle.store import BlobStore

CHUNK = 1 << 20
"""Bytes read, sent or written at a time."""


async def chunks(path: Path, on_chunk: Callable[[int], None] | None = None) -> AsyncIterator[bytes]:
    """Reads a file for sending, off the event loop.

    Args:
        path: the file.
        on_chunk: told the number of bytes of every chunk once it has been taken.
    """
    with path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, CHUNK):
            yield data
            if on_chunk is not None:
                on_chunk(len(data))


async def into_store(
    store: BlobStore, sha256: str, size: int, stream: AsyncIterator[bytes]
) -> None:
    """Writes a stream into a blob store.

    Raises:
        IntegrityError: the bytes are not what was promised; nothing is left behind.
        OSError: the disk is full or refuses.
    """
    blob = await asyncio.to_thread(store.receive, sha256, size)
    try:
        async for data in stream:
            await asyncio.to_thread(blob.write, data)
    except BaseException:
        blob.abort()
        raise
    await asyncio.to_thread(blob.commit)
