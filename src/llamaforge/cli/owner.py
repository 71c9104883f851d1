"""Which process keeps this user's embedded fleet: `llamaforge down` has to find it.

It holds a lock for as long as it lives, so that a process id left over by a crash misleads nobody.
"""

from __future__ import annotations

import os
from pathlib import Path

from llamaforge.errors import UserError
from llamaforge.wire.fleet_file import Lock

NAME = "up.pid"


class Owner:
    """The keeper of the embedded fleet in a state folder."""

    def __init__(self, state: Path) -> None:
        self._file = state / NAME
        self._lock = Lock(self._file.with_suffix(".lock"))

    def take(self) -> None:
        """This process keeps the fleet from now on. Raises UserError when another one does."""
        if not self._lock.take():
            raise UserError(
                f"a fleet runs already: `llamaforge up` is pid {self.find() or '?'}",
                hint="use it as it is, or stop it first: llamaforge down",
            )
        self._file.write_text(f"{os.getpid()}\n")

    def free(self) -> None:
        """This process keeps it no longer."""
        self._file.unlink(missing_ok=True)
        self._lock.free()

    def find(self) -> int | None:
        """The keeper's process id; None where nobody keeps a fleet."""
        if not self._lock.taken():
            return None
        try:
            return int(self._file.read_text())
        except (FileNotFoundError, ValueError):  # just starting or just ending
            return None
