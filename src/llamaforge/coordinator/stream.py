"""A job's stream of updates, kept in a file so that neither a long job nor a late client hurts."""

from __future__ import annotations

import asyncio
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
        self._file = path.open("wb")
        self._more = asyncio.Event()

    def add(self, update: JobUpdate) -> None:
        """Adds an update; after `Ended` nothing is added any more."""
        if self.ended:
            return
        self._file.write(msgspec.json.encode(Numbered(number=self.length, update=update)) + b"\n")
        self._file.flush()
        self.length += 1
        if isinstance(update, Ended):
            self.ended = True
            self._file.close()
        self._more.set()
        self._more = asyncio.Event()

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
            for _ in range(position):
                file.readline()
            while True:
                more = self._more
                while line := file.readline():
                    yield line
                if self.ended:
                    return
                try:
                    await asyncio.wait_for(more.wait(), beat)
                except asyncio.TimeoutError:
                    yield b"\n"
