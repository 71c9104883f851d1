"""The coordinator's memory: one SQLite database and the files that belong to it.

The rule that makes a coordinator safe to kill: nothing leaves it (acknowledgement, order, answer,
line of a stream) before `settled` has returned. Then whatever anybody was told is still known after
a SIGKILL or a power cut, and what is not known any more was told to nobody.

All calls but the waiting in `settled` are for the event loop's thread, and quick.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from llamaforge.coordinator.ledger import backup, schema
from llamaforge.coordinator.ledger.durable_file import DurableFile, cut_back
from llamaforge.coordinator.ledger.jobs import Jobs
from llamaforge.coordinator.ledger.queue import Queue
from llamaforge.coordinator.ledger.writer import Batch, Writer, connect
from llamaforge.errors import LlamaForgeError, Occupied, UserError
from llamaforge.wire.api import Event

_EVENT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


class Ledger:
    """An open ledger; made by `Ledger.open`, which holds its lock.

    Args:
        path: the database, checked and of the newest schema.
        lock: an open file whose lock keeps a second coordinator out.
        clock: gives Unix time in seconds.
    """

    def __init__(self, path: Path, lock: int, clock: Callable[[], float]) -> None:
        self.path = path
        self._lock, self._clock = lock, clock
        self._reader = connect(path)
        self._reader.execute("PRAGMA query_only = ON")
        self._sizes: dict[str, int] = dict(self._reader.execute("SELECT path, size FROM files"))
        self._files: dict[str, DurableFile] = {}
        self._number = self._newest_event()
        self._durable_events = self._number
        self._writer = Writer(path)
        self._queue = Queue(self._writer, self._committed, self._forget)
        self.jobs = Jobs(self.write, self.event, self._reader)
        """States of jobs, and the only way to change them."""

    @classmethod
    def open(cls, path: Path | str, *, clock: Callable[[], float] = time.time) -> Ledger:
        """Opens a ledger, or makes an empty one.

        Raises:
            Occupied: another coordinator has it.
            UserError: it is damaged, was written by a newer version, or can't be opened.
        """
        path = Path(path).absolute()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _locked(path)
        except OSError as error:
            raise UserError(f"the ledger {path} can't be opened: {error}") from error
        try:
            _prepare(path)
            return cls(path, lock, clock)
        except BaseException:
            os.close(lock)
            raise

    # ── rows ──────────────────────────────────────────────────────────────────────────────────

    def write(self, sql: str, *parameters: object) -> None:
        """Queues a statement. All that is queued between two commits is one transaction."""
        self._queue.open.rows.append((sql, parameters))
        self._queue.touch()

    def read(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Asks the database; sees what is queued too, and so waits for the disk.

        For starts and rare questions: it ends the transaction that is being gathered.

        Raises:
            OSError: what is queued could not be written.
        """
        self._queue.flush()
        return self._reader.execute(sql, parameters).fetchall()

    def look(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Asks the database for what is durable; doesn't wait, and doesn't see what is queued."""
        return self._reader.execute(sql, parameters).fetchall()

    def event(
        self, kind: str, subject: str, what: str, reason: str = "", by: str = "", **fields: Any
    ) -> Event:
        """Queues an event; the fields of `wire.api.Event`, numbered without a gap."""
        self._number += 1
        event = Event(
            number=self._number,
            time=self._clock(),
            kind=kind,
            subject=subject,
            what=what,
            reason=reason,
            by=by,
            fields=fields,
        )
        body = msgspec.json.encode(fields)
        self.write(_EVENT, event.number, event.time, kind, subject, what, reason, by, body)
        return event

    def events(
        self,
        after: int = 0,
        limit: int = 1000,
        kind: str | None = None,
        subject: str | None = None,
    ) -> list[Event]:
        """Durable events in order; those that are still queued are not among them.

        Args:
            after: number of the last event that is already known.
            limit: most events to give.
            kind: only events of this kind.
            subject: only events about this job, node, ….
        """
        rows = self._reader.execute(
            "SELECT * FROM events WHERE number > ?1 AND (?2 IS NULL OR kind = ?2) "
            "AND (?3 IS NULL OR subject = ?3) ORDER BY number LIMIT ?4",
            (after, kind, subject, limit),
        )
        return [_event(row) for row in rows]

    @property
    def last_event(self) -> int:
        """Number of the newest durable event; 0 before the first."""
        return self._durable_events

    # ── files ─────────────────────────────────────────────────────────────────────────────────

    def file(self, path: Path | str, *, mode: int = 0o600) -> DurableFile:
        """Opens an append-only file, cut back to its last durable size; a new one is empty.

        For files in the coordinator's own folders: one that is on another, full disk would keep
        every row from being written.

        Raises:
            IntegrityError: the file has fewer bytes than were committed.
        """
        path = Path(path).absolute()
        name = self._name(path)
        known = self._files.get(name)
        if known is not None:
            known.closed = False
            return known
        size = self._sizes.get(name, 0)
        # A file of this name whose removal is on its way is still on the disk.
        if not self._queue.removes(name):
            cut_back(path, size)
        file = self._files[name] = DurableFile(self._queue, path, name, size, mode)
        return file

    # ── durability ────────────────────────────────────────────────────────────────────────────

    async def settled(self) -> None:
        """Returns when all that was queued or appended before the call is durable.

        Raises:
            OSError: the disk refuses; all stays queued, in order, and is tried again.
        """
        await self._queue.settled()

    def flush(self) -> None:
        """The same without an event loop: blocks.

        Raises:
            OSError: as `settled`.
        """
        self._queue.flush()

    @property
    def trouble(self) -> str:
        """What is wrong with the disk, in words; empty when all is well."""
        return self._queue.trouble

    def close(self, *, flush: bool = True) -> None:
        """Writes what is queued and lets go; without `flush` as a SIGKILL would, for tests.

        Raises:
            OSError: the disk refuses; the ledger is closed nevertheless.
        """
        try:
            if flush:
                self._queue.flush()
        finally:
            self._queue.stop()
            self._writer.close()
            self._reader.close()
            os.close(self._lock)

    # ── inside ────────────────────────────────────────────────────────────────────────────────

    def _name(self, path: Path) -> str:
        """Relative where it lies below the ledger, so that the whole folder can be moved."""
        home = self.path.parent
        return path.relative_to(home).as_posix() if path.is_relative_to(home) else path.as_posix()

    def _newest_event(self) -> int:
        row = self._reader.execute("SELECT coalesce(max(number), 0) FROM events").fetchone()
        return int(row[0])

    def _forget(self, file: DurableFile) -> None:
        self._files.pop(file.name, None)
        self._sizes.pop(file.name, None)

    def _committed(self, batch: Batch) -> None:
        for sql, parameters in reversed(batch.rows):
            if sql is _EVENT:
                self._durable_events = int(str(parameters[0]))
                break
        for file, change in batch.files.items():
            if change.epoch != file.epoch or change.removed:
                continue
            self._sizes[file.name] = file.durable = change.size
            if file.closed and file.size == file.durable:
                self._files.pop(file.name, None)


def _locked(path: Path) -> int:
    """Takes the ledger's lock, which dies with the process."""
    lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(lock, 32, 0).decode(errors="replace").strip()
        os.close(lock)
        raise Occupied(
            f"another coordinator (process {owner or '?'}) uses the ledger {path}",
            hint="llamaforge status says which one runs; give the second one another --state",
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _prepare(path: Path) -> None:
    """Makes, checks and migrates the database."""
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    try:
        connection = connect(path)
        try:
            schema.refuse_newer(connection, path)
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(found)
            if 0 < schema.version_of(connection) < schema.VERSION:
                before = f"ledger-before-schema-{schema.VERSION}.db"
                backup.save(connection, path, before)
            schema.migrate(connection)
        finally:
            connection.close()
    except (sqlite3.Error, OSError) as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: Exception) -> LlamaForgeError:
    if isinstance(error, sqlite3.OperationalError | OSError):
        return UserError(f"the ledger {path} can't be opened: {error}")
    copy = backup.newest(path)
    if copy is None:
        restore = f"there is no copy in {backup.folder_of(path)}; move {path} away to begin anew"
    else:
        restore = (
            f"put back its newest copy: mv {path} {path}.damaged && "
            f"rm -f {path}-wal {path}-shm && cp -p {copy} {path}"
        )
    return UserError(f"the ledger {path} is damaged: {error}", hint=restore)


def _event(row: tuple[Any, ...]) -> Event:
    number, at, kind, subject, what, reason, by, fields = row
    return Event(
        number=number,
        time=at,
        kind=kind,
        subject=subject,
        what=what,
        reason=reason,
        by=by,
        fields=msgspec.json.decode(fields or b"{}"),
    )
