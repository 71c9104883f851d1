"""Random access to canonical rows: training asks for row 7 of ten million in O(1) memory.

The file is mapped, and so is the table of where each row starts, which is made in one pass and
kept beside the file. The operating system decides what stays in memory.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamaforge.data.rows import Row, decode
from llamaforge.errors import DataError, IntegrityError

_BLOCK = 1 << 24
"""Bytes that the search for line ends looks at in one go."""

_HEAD = 3
"""Numbers before the offsets in the kept table: format version, file size, mtime in ns."""

_VERSION = 1


class Rows:
    """The rows of a canonical file, by index. May be used from several threads at once.

    Args:
        path: a file that `data.scan` or `data.heldout` wrote. It must not change while in use.
        keep: keep the table of offsets beside the file (`NAME.offsets.npy`) where the folder
            can be written to.

    Raises:
        DataError: the file is missing or has no rows.
    """

    def __init__(self, path: Path, *, keep: bool = True) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._stat = os.fstat(file.fileno())
                if not self._stat.st_size:
                    raise DataError(f"{path} has no rows", hint="make the canonical rows again")
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise DataError(f"{path}: can't be read: {error.strerror}") from error
        self._offsets = self._table(keep)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> Row:
        """Row `index`, from 0.

        Raises:
            IndexError: there is no such row.
            IntegrityError: its bytes are not a canonical row.
        """
        return decode(self.raw(index))

    def raw(self, index: int) -> bytes:
        """The bytes of row `index`, with the newline; raises as `[index]` does."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} is outside [0, {len(self)})")
        start, end = int(self._offsets[index]), int(self._offsets[index + 1])
        line = self._bytes[start:end]
        if line.count(b"\n") != 1 or not line.endswith(b"\n"):
            raise IntegrityError(
                f"{self.path}: row {index} is damaged", hint="remove the cached file and run again"
            )
        return line

    def _table(self, keep: bool) -> NDArray[np.uint64]:
        """Where each row starts, and the end of the last: uint64 [rows + 1]."""
        kept = self.path.with_name(self.path.name + ".offsets.npy")
        offsets = self._kept(kept)
        if offsets is None:
            offsets = _line_starts(self._bytes)
            if keep:
                _keep(kept, np.concatenate([self._head(), offsets]))
        return offsets

    def _kept(self, kept: Path) -> NDArray[np.uint64] | None:
        """The table of an earlier run, unless it is missing, damaged, or of another file."""
        try:
            table = np.load(kept, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        right = table.dtype == np.uint64 and table.ndim == 1 and len(table) >= _HEAD + 2
        if not right or not np.array_equal(table[:_HEAD], self._head()):
            return None
        return table[_HEAD:] if table[-1] == self._stat.st_size else None

    def _head(self) -> NDArray[np.uint64]:
        return np.array([_VERSION, self._stat.st_size, self._stat.st_mtime_ns], np.uint64)


def _line_starts(content: mmap.mmap) -> NDArray[np.uint64]:
    ends = [np.zeros(1, np.uint64)]
    for start in range(0, len(content), _BLOCK):
        block = np.frombuffer(content[start : start + _BLOCK], np.uint8)
        ends.append((np.flatnonzero(block == ord("\n")) + (start + 1)).astype(np.uint64))
    offsets = np.concatenate(ends)
    if offsets[-1] != len(content):
        offsets = np.append(offsets, np.uint64(len(content)))
    return offsets


def _keep(path: Path, table: NDArray[Any]) -> bool:
    """Writes the table aside and renames it. False where the folder can't be written to."""
    try:
        handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError:
        return False
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, table, allow_pickle=False)
        Path(aside).replace(path)
    except OSError:
        return False
    finally:
        Path(aside).unlink(missing_ok=True)
    return True
