"""A file of JSON lines that is appended to, survives crashes, and never holds half a line.

Whoever opens one for writing first repairs it: a crash may have torn its last line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from llamaforge.errors import IntegrityError

Line = dict[str, Any]
_Self = TypeVar("_Self", bound="Lines")


class Lines:
    """Appends to a file of JSON lines.

    Args:
        path: the file; it and its folder are made when missing.

    Raises:
        IntegrityError: the file holds something else than JSON lines.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.keep(lambda _: True)
        self._file = path.open("ab")

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def append(self, line: Mapping[str, Any]) -> None:
        """Adds one line; when this returns, other processes can read it."""
        self._file.write(msgspec.json.encode(line) + b"\n")
        self._file.flush()

    def keep(self, wanted: Callable[[Line], bool]) -> None:
        """Drops the lines that are not wanted, and a torn last one; the file is replaced whole."""
        if not self.path.exists():
            return
        before = self.path.read_bytes()
        lines = [msgspec.json.encode(line) + b"\n" for line in read(self.path) if wanted(line)]
        if before.endswith(b"\n") and len(lines) == before.count(b"\n"):
            return
        aside = self.path.with_name(f"{self.path.name}.new")
        with aside.open("wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.path)

    def close(self) -> None:
        """Makes everything durable and closes the file."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


def read(path: Path) -> list[Line]:
    """Reads all lines. A last line that is still being written, or was torn, is left out.

    Returns:
        The lines; none when there is no such file.

    Raises:
        IntegrityError: a line before the last is not a JSON object; names file and line.
    """
    if not path.exists():
        return []
    *whole, torn = path.read_bytes().split(b"\n")
    lines = []
    for number, text in enumerate(whole, start=1):
        try:
            lines.append(msgspec.json.decode(text, type=dict[str, Any]))
        except msgspec.MsgspecError as error:
            if number == len(whole) and not torn:
                break
            raise IntegrityError(f"{path}:{number}: not a JSON object: {error}") from error
    return lines
