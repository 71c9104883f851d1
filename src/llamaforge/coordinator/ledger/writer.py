"""The one thread that touches the ledger's disk: files first, then rows and sizes, then the news.

A batch is all or nothing. Bytes of files go to the disk before the transaction that tells of them;
a crash in between leaves bytes that no row knows, and they are cut off at the next start. Files are
cut and removed only after the transaction, for the same reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import sqlite3
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from llamaforge.coordinator.ledger import backup
from llamaforge.coordinator.ledger.durable_file import DurableFile, FileChange

log = logging.getLogger("llamaforge.coordinator")

_DISK_SAYS = {
    "is full": errno.ENOSPC,
    "disk I/O error": errno.EIO,
    "unable to open": errno.EIO,
    "readonly database": errno.EROFS,
    "malformed": errno.EIO,
    "not a database": errno.EIO,
    "locked": errno.EBUSY,
}
"""What SQLite says about a disk, by words that it uses; all else is a mistake of the program."""


class Batch:
    """Rows and changes of files that become durable together."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, tuple[object, ...]]] = []
        self.files: dict[DurableFile, FileChange] = {}
        self.waiters: list[asyncio.Future[None]] = []

    def __bool__(self) -> bool:
        return bool(self.rows or self.files)


class Writer:
    """Commits batches, one after the other, in a thread.

    Args:
        path: the database, which has its newest schema.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = connect(path)
        self._thread = ThreadPoolExecutor(1, "ledger")
        self._saved = ""

    def submit(self, batch: Batch) -> Future[None]:
        """Has a batch committed; it must not be changed any more.

        Returns:
            Done when the batch is durable. An OSError (the disk) means that it is not, and may be
            given again; anything else is a mistake in what was to be written.
        """
        return self._thread.submit(self._commit, batch)

    def close(self) -> None:
        """Ends the thread after what it is doing."""
        self._thread.shutdown()
        self._connection.close()

    def _commit(self, batch: Batch) -> None:
        made: set[Path] = set()
        for file, change in batch.files.items():
            if change.data and not file.lost:
                _write(file, change, made)
        for folder in made:
            _sync_folder(folder)
        try:
            self._transaction(batch)
        except sqlite3.Error as error:
            raise _as_os_error(error, self._path) from error
        for file, change in batch.files.items():
            _tidy(file, change)
        self._save()

    def _transaction(self, batch: Batch) -> None:
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        try:
            for sql, parameters in batch.rows:
                run(sql, parameters)
            for file, change in batch.files.items():
                if change.removed:
                    run("DELETE FROM files WHERE path = ?", (file.name,))
                elif not file.lost:
                    run("INSERT OR REPLACE INTO files VALUES (?, ?)", (file.name, change.size))
            run("COMMIT")
        except BaseException:
            # A failed COMMIT or a full disk may have ended the transaction already.
            if self._connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    run("ROLLBACK")
            raise

    def _save(self) -> None:
        """One copy a day; one that fails costs no commit."""
        if self._saved == backup.today():
            return
        self._saved = backup.today()
        try:
            if not (backup.folder_of(self._path) / self._saved).exists():
                backup.save(self._connection, self._path, self._saved)
        except (OSError, sqlite3.Error) as error:
            log.warning("the ledger's daily copy could not be made: %s", error)


def connect(path: Path) -> sqlite3.Connection:
    """A connection that commits when told, and durably.

    Raises:
        sqlite3.Error: it can't be opened.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _write(file: DurableFile, change: FileChange, made: set[Path]) -> None:
    """Puts bytes where they belong, over whatever an earlier try has left there.

    An fsync that failed may have dropped what it could not write, so a second try writes anew.
    """
    if change.offset and not file.path.exists():
        file.lost = f"{file.path} has been deleted"
        log.warning("%s: nothing is written to it any more", file.lost)
        return
    _make_folder(file.path.parent, made)
    if not file.path.exists():
        made.add(file.path.parent)
    handle = os.open(file.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, file.mode)
    try:
        present = os.fstat(handle).st_size
        if present < change.offset:
            file.lost = f"{file.path} has been shortened to {present} bytes"
            log.warning("%s: nothing is written to it any more", file.lost)
            return
        if present > change.offset:
            os.ftruncate(handle, change.offset)
        _write_all(handle, change)
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_all(handle: int, change: FileChange) -> None:
    view, position = memoryview(change.data), change.offset
    try:
        while view:
            written = os.pwrite(handle, view, position)
            view, position = view[written:], position + written
    finally:
        view.release()


def _make_folder(folder: Path, made: set[Path]) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent, made)
        folder.mkdir(mode=0o700, exist_ok=True)
        made.update((folder, folder.parent))


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _tidy(file: DurableFile, change: FileChange) -> None:
    """What is not in the ledger any more; if this fails, the next write or start does it."""
    try:
        if change.removed:
            file.path.unlink(missing_ok=True)
        elif change.cut and not file.lost:
            os.truncate(file.path, change.size)
    except OSError as error:
        log.warning("%s could not be cut or removed: %s", file.path, error)


def _as_os_error(error: sqlite3.Error, path: Path) -> Exception:
    """What SQLite says about the disk as the system would say it; a mistake as it is."""
    for words, number in _DISK_SAYS.items():
        if words in str(error):
            return OSError(number, os.strerror(number), str(path))
    return error
