"""Copies of the ledger's database: one a day, and one before each migration.

They are made with SQLite's backup interface while the database is in use, and get their name only
when they are whole and on the disk.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

FOLDER = "backups"
KEPT = 7
"""Daily copies; those from before migrations are kept as well, one for each version."""


def folder_of(database: Path) -> Path:
    """Where the copies of a database are."""
    return database.parent / FOLDER


def today() -> str:
    """The name of today's copy."""
    return time.strftime("ledger-%Y-%m-%d.db")


def newest(database: Path) -> Path | None:
    """The copy that was made last; None when there is none."""
    copies = folder_of(database).glob("ledger-*.db")
    return max(copies, key=lambda copy: copy.stat().st_mtime, default=None)


def save(connection: sqlite3.Connection, database: Path, name: str) -> Path:
    """Makes a copy of what is committed.

    Args:
        connection: an open connection to the database, outside a transaction.
        database: where it lies.
        name: of the copy; an older one of this name is replaced.

    Raises:
        OSError, sqlite3.Error: it could not be written; nothing has changed.
    """
    folder = folder_of(database)
    folder.mkdir(mode=0o700, exist_ok=True)
    unfinished = folder / f"{name}.unfinished"
    unfinished.unlink(missing_ok=True)
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    copy = sqlite3.connect(unfinished)
    try:
        connection.backup(copy)
        # A copy in WAL mode would need two more files beside it.
        copy.execute("PRAGMA journal_mode = DELETE")
    finally:
        copy.close()
    _to_disk(unfinished)
    unfinished.replace(folder / name)
    _to_disk(folder)
    for old in sorted(folder.glob("ledger-[0-9]*.db"))[:-KEPT]:
        old.unlink(missing_ok=True)
    return folder / name


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
