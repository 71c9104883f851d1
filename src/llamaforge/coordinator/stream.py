"""A job's stream of updates, kept in a file so that neither a long job nor a late client hurts."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from llamaforge.wire.updates import Ended, JobUpdate, Numbered


class JobStream:
    """Appends updates and lets any number of clients read them from any position.

    Args:
        path: the file, one JSON `Numbered` a line; replaced when it exists.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.length = 0
        """Updates so far."""
        self.ended = False
        self._path = path
        self._file = path.open("wb", buffering=0)
        self._size = 0
        self._last = b""
        """The end, where the disk did not take it."""
        self._more = asyncio.Event()

    def add(self, update: JobUpdate) -> None:
        """Adds an update; after `Ended`, which followers get even on a full disk, none is added.

        Raises:
            OSError: the disk is full or refuses; the stream goes on without this update.
        """
        if self.ended:
            return
        line = msgspec.json.encode(Numbered(number=self.length, update=update)) + b"\n"
        if isinstance(update, Ended):
            self._end(line)
        else:
            self._write(line)
        self.length += 1
        self._more.set()
        self._more = asyncio.Event()

    def _end(self, line: bytes) -> None:
        try:
            self._write(line)
        except OSError:
            self._last = line
        self.ended = True
        self._file.close()

    def _write(self, line: bytes) -> None:
        """Appends a whole line or nothing."""
        if self._file.write(line) != len(line):
            self._file.truncate(self._size)
            self._file.seek(self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._size += len(line)

    def remove(self) -> None:
        """Deletes the file; readers that have it open read on."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    async def read(self, position: int, beat: float) -> AsyncIterator[bytes]:
        """The stream's lines from `position` on, as they come, until it has ended.

        Args:
            position: number of the first update that is wanted.
            beat: seconds of silence after which an empty line is given.
        """
        with self._path.open("rb") as file:
            for _ in range(min(position, self.length)):
                file.readline()
            while True:
                more = self._more
                while (line := file.readline()).endswith(b"\n"):
                    yield line
                file.seek(-len(line), os.SEEK_CUR)  # half a line, which is taken back
                if self.ended:
                    if self._last:
                        yield self._last
                    return
                try:
                    await asyncio.wait_for(more.wait(), beat)
                except asyncio.TimeoutError:
                    yield b"\n"
