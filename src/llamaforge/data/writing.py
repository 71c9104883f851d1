"""Canonical rows on their way to disk: counted, digested, and put in place whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from llamaforge.errors import UserError


@dataclass(frozen=True)
class CanonicalFile:
    """A complete file of canonical rows."""

    path: Path
    rows: int
    size: int
    """Bytes."""
    sha256: str


class Writing:
    """A file of canonical rows that is being written."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._sha256 = hashlib.sha256()
        self._size = 0
        self.rows = 0

    def append(self, line: bytes) -> None:
        """Adds one row: its JSON with the newline.

        Raises:
            UserError: the disk is full or gone.
        """
        with _explained(self._path):
            self._file.write(line)
        self._sha256.update(line)
        self._size += len(line)
        self.rows += 1

    @property
    def done(self) -> CanonicalFile:
        """What has been written so far."""
        return CanonicalFile(self._path, self.rows, self._size, self._sha256.hexdigest())


@contextmanager
def writing(path: Path) -> Iterator[Writing]:
    """Writes `path` aside, syncs it and renames it at the end; on an error nothing is left.

    Raises:
        UserError: the folder can't be written to, or is full.
    """
    with _explained(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    aside = Path(name)
    try:
        with os.fdopen(handle, "wb", buffering=1 << 20) as file:
            yield Writing(path, file)
            with _explained(path):
                file.flush()
                os.fsync(handle)
        with _explained(path):
            aside.chmod(0o644)
            aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        folder = path.parent
        raise UserError(
            f"can't write {path}: {error.strerror}",
            hint=f"free some space: df -h {folder}" if full else f"look at: ls -ld {folder}",
        ) from error
