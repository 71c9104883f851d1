"""A job's stream of updates, kept in a file so that neither a long job nor a late client hurts.

Followers see a line only once it is durable: what they have seen stays true when the coordinator is
started again, and the next line has the next number.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from pathlib import Path

import msgspec

from llamaforge.coordinator.ledger.ledger import Ledger
from llamaforge.wire.updates import Ended, JobUpdate, Numbered


class JobStream:
    """Appends updates and lets any number of clients read them from any position.

    Args:
        path: the file, one JSON `Numbered` a line; one that exists is gone on with.
        ledger: makes it durable.
        barrier: returns when all that was added is durable.
    """

    def __init__(self, path: Path, ledger: Ledger, barrier: Callable[[], Awaitable[None]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self.path = path
        self._file = ledger.file(path)
        self._barrier = barrier
        # An earlier stream of this name may still lie there: its removal is on its way.
        self.length, last = _count(path) if self._file.size else (0, None)
        """Updates so far."""
        self.ended = isinstance(last, Ended)
        self._more = asyncio.Event()

    def add(self, update: JobUpdate) -> None:
        """Adds an update; after `Ended` none is added.

        Raises:
            OSError: the disk is full or refuses; the stream goes on without this update.
        """
        if self.ended:
            return
        self._file.append(msgspec.json.encode(Numbered(number=self.length, update=update)) + b"\n")
        self.length += 1
        if isinstance(update, Ended):
            self.ended = True
            self._file.close()
        self._more.set()
        self._more = asyncio.Event()

    def close(self) -> None:
        """Closes the file; the stream may be read on."""
        self._file.close()

    def remove(self) -> None:
        """Deletes the file; readers that have it open read on."""
        self._file.remove()

    async def read(
        self, position: int, beat: float, kinds: Collection[str] = ()
    ) -> AsyncIterator[bytes]:
        """The stream's lines from `position` on, as they come, until it has ended.

        Args:
            position: number of the first update that is wanted.
            beat: seconds of silence after which an empty line is given.
            kinds: only updates with these tags; all when empty.
        """
        wanted = tuple(b'"update":{"type":"%s"' % kind.encode() for kind in kinds)
        left, at = position, 0
        while True:
            more, ended, length = self._more, self.ended, self.length
            if not await self._durable(beat):
                yield b"\n"
                continue
            if at < self._file.durable:
                with self.path.open("rb") as file:
                    file.seek(at)
                    while file.tell() < self._file.durable:
                        line = file.readline()
                        left -= 1
                        at = file.tell()
                        if left < 0 and (not wanted or any(tag in line[:80] for tag in wanted)):
                            yield line
            if ended and length == self.length:
                return
            if not await _within(more.wait(), beat):
                yield b"\n"

    async def _durable(self, beat: float) -> bool:
        """Whether all that was added is durable; False where that takes long (a full disk)."""
        return await _within(self._barrier(), beat)


async def _within(what: Awaitable[object], seconds: float) -> bool:
    try:
        await asyncio.wait_for(what, seconds)
    except asyncio.TimeoutError:
        return False
    return True


def _count(path: Path) -> tuple[int, JobUpdate | None]:
    """How many updates a file holds, and the last one."""
    last, count = b"", 0
    try:
        with path.open("rb") as file:
            for line in file:
                last, count = line, count + 1
    except FileNotFoundError:
        return 0, None
    if not last:
        return 0, None
    return count, msgspec.json.decode(last, type=Numbered).update
