"""An append-only file that is never ahead of the ledger's rows, nor behind them.

What is appended waits in memory until the writer has put it on the disk together with the rows of
the same batch. A file that is opened again is cut to the size that the rows know, so bytes that
were on the disk without their rows are gone, as if they had never been written.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from llamaforge.errors import IntegrityError

if TYPE_CHECKING:
    from llamaforge.coordinator.ledger.queue import Queue

PATIENCE = 64 << 20
"""Bytes that one file may keep in memory while the disk doesn't take them."""


class FileChange:
    """What one batch does to one file: bytes from `offset` on, or its end there, or its removal."""

    def __init__(self, offset: int, epoch: int) -> None:
        self.offset = offset
        self.epoch = epoch
        self.data = bytearray()
        self.cut = False
        self.removed = False

    @property
    def size(self) -> int:
        """Bytes of the file once this is done."""
        return self.offset + len(self.data)


class DurableFile:
    """One file of the ledger; made by `Ledger.file`.

    Args:
        queue: where changes wait for the writer.
        path: where it lies; its folder is made when it is first written.
        name: under which its size stands in the ledger.
        size: bytes that are durable.
        mode: permissions of a new file, before the umask.
    """

    def __init__(self, queue: Queue, path: Path, name: str, size: int, mode: int) -> None:
        self.path, self.name, self.mode = path, name, mode
        self.size = size
        """Bytes, with those that are still in memory."""
        self.durable = size
        """Bytes that are on the disk and in the ledger; a reader must not go further."""
        self.lost = ""
        """Why it takes nothing any more: somebody deleted or shortened it; empty normally."""
        self.epoch = 0
        self.closed = False
        self._queue = queue

    def append(self, data: bytes) -> None:
        """Adds bytes at the end; they are durable after `Ledger.settled`.

        Raises:
            OSError: the disk has not taken anything for so long that memory would run out.
        """
        if self.size - self.durable + len(data) > PATIENCE and self._queue.trouble:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        change = self._queue.open.files.get(self)
        if change is None:
            change = self._queue.open.files[self] = FileChange(self.size, self.epoch)
        change.data += data
        self.size += len(data)
        self._queue.touch()

    def truncate(self, size: int) -> None:
        """Cuts the file to `size` bytes; what is appended afterwards is a batch of its own.

        Raises:
            ValueError: it is not that long.
        """
        if not 0 <= size <= self.size:
            raise ValueError(f"{self.path} has {self.size} bytes and can't be cut to {size}")
        change = self._queue.open.files.get(self)
        start = change.offset if change else self.size
        if change and size >= start:
            del change.data[size - start :]
            self.size = size
        elif size < self.size:
            self._end_at(size).cut = True
            self._queue.seal()

    def remove(self) -> None:
        """Deletes the file with the next commit; those who have it open can read on."""
        self._end_at(0).removed = True
        self.closed = True
        self._queue.forget(self)
        self._queue.seal()

    def close(self) -> None:
        """Lets go of the file; what was appended is still written."""
        self.closed = True
        self._queue.touch()

    def _end_at(self, size: int) -> FileChange:
        """Bytes behind `size` are none of the readers' business from now on."""
        self.epoch += 1
        self.size, self.durable = size, min(self.durable, size)
        change = self._queue.open.files[self] = FileChange(size, self.epoch)
        return change


def cut_back(path: Path, size: int) -> None:
    """Takes away what was never committed, before anybody reads it.

    Raises:
        IntegrityError: the file has fewer bytes than were committed.
        OSError: it can't be cut.
    """
    present = path.stat().st_size if path.exists() else 0
    if present < size:
        raise IntegrityError(
            f"{path} has {present} bytes, and {size} had been written and confirmed",
            hint="the disk lost them, or somebody changed the file",
        )
    if present > size:
        os.truncate(path, size)
