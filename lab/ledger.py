"""What a lab has made on this box, written down before it is made.

One file per lab, /run/llamaforge-lab/NAME.json: one JSON object per line, the first one about the
owner. Lines are only added, so the file keeps its inode and can be locked by whoever takes the lab
down: its owner, its janitor, or the next lab after both died. A line is no proof that the thing
exists; undoing what was never made is fine.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FOLDER = Path("/run/llamaforge-lab")

Kind = Literal["cgroup", "mount", "link", "table", "folder", "file", "empty-folder"]


@dataclass(frozen=True)
class Process:
    """A process for good: a pid together with its start, in clock ticks since boot."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this pid now, unless it is gone or a zombie."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]))

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return Process.of(self.pid) == self


class Ledger:
    """The ledger of one lab."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = FOLDER / f"{name}.json"

    def begin(self, owner: Process) -> None:
        """Write the first line. Fails with FileExistsError where the name is taken."""
        with self.path.open("x") as file:
            line = {"owner": owner.pid, "start": owner.start, "since": round(time.time())}
            file.write(json.dumps(line) + "\n")

    def note(self, kind: Kind, name: str | Path) -> None:
        """Write down one thing that is about to be made."""
        with self.path.open("a") as file:
            file.write(json.dumps({"kind": kind, "name": str(name)}) + "\n")

    def owner(self) -> Process | None:
        """Who opened this lab; None where the file was cut off in its first line."""
        for line in self._lines():
            if "owner" in line:
                return Process(int(str(line["owner"])), int(str(line["start"])))
        return None

    def entries(self) -> list[tuple[str, str]]:
        """Kind and name of everything noted, oldest first, each once."""
        found = [(str(line["kind"]), str(line["name"])) for line in self._lines() if "kind" in line]
        return list(dict.fromkeys(found))

    def _lines(self) -> Iterator[dict[str, object]]:
        try:
            text = self.path.read_text()
        except FileNotFoundError:
            return
        for line in text.splitlines():
            # The last line of a writer that was killed may be half a line: nothing was made for it.
            with contextlib.suppress(json.JSONDecodeError):
                yield json.loads(line)

    @contextlib.contextmanager
    def taken(self) -> Iterator[bool]:
        """Hold this ledger against others who would take the lab down; False when it is gone."""
        try:
            file = os.open(self.path, os.O_RDWR)
        except FileNotFoundError:
            yield False
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield os.fstat(file).st_nlink > 0
        finally:
            os.close(file)


def ledgers() -> list[Ledger]:
    """All labs that are written down on this box."""
    return [Ledger(path.stem) for path in sorted(FOLDER.glob("*.json"))]


@contextlib.contextmanager
def claiming() -> Iterator[None]:
    """Hold the folder of ledgers alone, making it first; it goes away with the last lab."""
    while True:
        FOLDER.mkdir(mode=0o755, exist_ok=True)
        try:
            folder = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            if os.fstat(folder).st_nlink > 0:
                yield
                return
        finally:
            os.close(folder)


def forget_folder() -> None:
    """Remove the folder of ledgers if it is empty. Never call it while claiming."""
    with claiming(), contextlib.suppress(OSError):
        FOLDER.rmdir()
