"""A file from a coordinator into a person's folder: it appears when all of it is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

PART = ".part"
"""What a file's name ends with while it is on its way."""


async def into_file(
    path: Path, stream: AsyncIterator[bytes], on_chunk: Callable[[int], None]
) -> None:
    """Writes a stream beside `path` and renames it; what was there stays until then.

    Args:
        path: the file; its folder is made.
        stream: the bytes.
        on_chunk: told the bytes of each chunk once it is written.

    Raises:
        OSError: the disk is full or refuses; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + PART)
    try:
        with part.open("wb") as file:
            async for data in stream:
                await asyncio.to_thread(file.write, data)
                on_chunk(len(data))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
