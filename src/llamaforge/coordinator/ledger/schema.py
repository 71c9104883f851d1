"""The ledger's tables, and how a database of an older version becomes one of this version.

A migration is a tuple of statements that run in one transaction; its place in `MIGRATIONS` is its
number, kept in `PRAGMA user_version`. One that has been released is never changed.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from llamaforge import __version__
from llamaforge.errors import UserError

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
        """CREATE TABLE jobs (
            id TEXT PRIMARY KEY, number INTEGER UNIQUE, key TEXT, submission BLOB, submitter TEXT,
            state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', since REAL, submitted REAL,
            step INTEGER NOT NULL DEFAULT 0, stop_reason TEXT NOT NULL DEFAULT '', memory BLOB,
            outcome BLOB)""",
        "CREATE INDEX jobs_by_key ON jobs (key)",
        """CREATE TABLE inputs (
            job TEXT, generation INTEGER, number INTEGER, body BLOB,
            PRIMARY KEY (job, generation, number)) WITHOUT ROWID""",
        """CREATE TABLE sessions (
            node TEXT PRIMARY KEY, session TEXT, received INTEGER NOT NULL DEFAULT 0, hello BLOB,
            state TEXT, reason TEXT NOT NULL DEFAULT '', since REAL,
            ranks INTEGER NOT NULL DEFAULT 0, job TEXT NOT NULL DEFAULT '')""",
        """CREATE TABLE events (
            number INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL,
            subject TEXT NOT NULL, what TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
            by TEXT NOT NULL DEFAULT '', fields BLOB)""",
        "CREATE INDEX events_by_subject ON events (kind, subject, number)",
        "CREATE TABLE files (path TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID",
        """CREATE TABLE tokens (
            id TEXT PRIMARY KEY, digest TEXT, role TEXT, name TEXT NOT NULL DEFAULT '',
            uses INTEGER NOT NULL, expires REAL NOT NULL, by TEXT NOT NULL DEFAULT '')
            WITHOUT ROWID""",
        """CREATE TABLE people (
            name TEXT PRIMARY KEY, since REAL, withdrawn INTEGER NOT NULL DEFAULT 0, serial TEXT)
            WITHOUT ROWID""",
        """CREATE TABLE nodes (
            name TEXT PRIMARY KEY, since REAL, removed INTEGER NOT NULL DEFAULT 0,
            cordoned INTEGER NOT NULL DEFAULT 0, draining INTEGER NOT NULL DEFAULT 0,
            reason TEXT NOT NULL DEFAULT '', serial TEXT, canary TEXT NOT NULL DEFAULT '')
            WITHOUT ROWID""",
    ),
)
VERSION = len(MIGRATIONS)
"""The schema that this version of LlamaForge writes and reads."""


def version_of(connection: sqlite3.Connection) -> int:
    """The schema version of a database; 0 of an empty one."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def refuse_newer(connection: sqlite3.Connection, path: Path) -> None:
    """Leaves a database alone that a later version has written.

    Raises:
        UserError: its schema is newer than this version's.
    """
    found = version_of(connection)
    if found > VERSION:
        raise UserError(
            f"the ledger {path} has schema {found}, and LlamaForge {__version__} knows schemas up "
            f"to {VERSION}",
            hint="start the coordinator with the newer LlamaForge that wrote it",
        )


def migrate(
    connection: sqlite3.Connection, migrations: tuple[tuple[str, ...], ...] = MIGRATIONS
) -> None:
    """Brings a database to the newest schema, each migration in a transaction of its own.

    Args:
        connection: in autocommit mode (`isolation_level=None`).
        migrations: all of them, the first one for an empty database.
    """
    for number in range(version_of(connection) + 1, len(migrations) + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in migrations[number - 1]:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
