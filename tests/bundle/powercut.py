"""A disk that records what is done to it, and every state that a power cut could leave behind.

The model is harsher than any journaling file system: bytes that were not synced may be lost, cut
in half, zeroed or all there, each file for itself; names that were not synced (made, renamed,
removed) may have reached the medium in any combination. What was synced stays.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from llamaforge.bundle.disk import Disk

Operation = tuple[str, tuple[str, ...], bytes]


class Recorder(Disk):
    """A real disk below `base` that keeps a record of every operation."""

    def __init__(self, base: Path, *, forget: str = "") -> None:
        self.base = base
        self.forget = forget
        """An operation that is silently not done: shows that the replay notices."""
        self.record: list[Operation] = []
        self.marks: list[tuple[int, int]] = []
        """(length of the record, step) whenever a commit had returned."""

    def returned(self, step: int) -> None:
        """Notes that the checkpoint of `step` is promised from here on."""
        self.marks.append((len(self.record), step))

    def _note(self, what: str, *paths: Path, data: bytes = b"") -> None:
        if what != self.forget:
            names = tuple(path.relative_to(self.base).as_posix() for path in paths)
            self.record.append((what, names, data))

    def make_folder(self, path: Path) -> None:
        super().make_folder(path)
        self._note("make_folder", path)

    def write(self, path: Path, data: bytes) -> None:
        super().write(path, data)
        self._note("write", path, data=data)

    def sync_file(self, path: Path) -> None:
        super().sync_file(path)
        self._note("sync_file", path)

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self._note("sync_folder", path)

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        self._note("rename", old, new)

    def remove(self, path: Path) -> None:
        for inner in sorted(path.rglob("*"), reverse=True) if path.exists() else ():
            self._note("unlink", inner)
        if path.exists():
            self._note("unlink", path)
        super().remove(path)


@dataclass
class File:
    now: bytes = b""
    synced: bytes | None = None


@dataclass
class Folder:
    now: dict[str, File | Folder] = field(default_factory=dict)
    synced: dict[str, File | Folder] = field(default_factory=dict)
    pending: list[tuple[str | None, str | None, File | Folder]] = field(default_factory=list)
    """(name that goes, name that comes, what it is): a rename is one, atomic, operation."""

    def change(self, old: str | None, new: str | None, node: File | Folder) -> None:
        self.pending.append((old, new, node))
        _apply(self.now, (old, new, node))


def _apply(
    names: dict[str, File | Folder], change: tuple[str | None, str | None, File | Folder]
) -> None:
    old, new, node = change
    if old is not None:
        names.pop(old, None)
    if new is not None:
        names[new] = node


class Medium:
    """What is in memory and what is on the medium, after a part of a record."""

    def __init__(self) -> None:
        self.root = Folder()

    def _folder(self, path: str) -> Folder:
        node: File | Folder = self.root
        for part in path.split("/") if path not in ("", ".") else ():
            assert isinstance(node, Folder)
            node = node.now[part]
        assert isinstance(node, Folder)
        return node

    def _make(self, parts: list[str]) -> None:
        folder = self.root
        for part in parts:
            if part not in folder.now:
                folder.change(None, part, Folder())
            below = folder.now[part]
            assert isinstance(below, Folder)
            folder = below

    def _split(self, path: str) -> tuple[Folder, str]:
        above, _, last = path.rpartition("/")
        return self._folder(above), last

    def do(self, operation: Operation) -> None:
        what, paths, data = operation
        if what == "sync_folder":
            folder = self._folder(paths[0])
            folder.synced, folder.pending = dict(folder.now), []
            return
        if what == "make_folder":
            self._make(paths[0].split("/"))
            return
        above, last = self._split(paths[0])
        node = above.now.get(last)
        if what == "write":
            if node is None:
                node = File()
                above.change(None, last, node)
            assert isinstance(node, File)
            node.now = data
        elif what == "sync_file":
            assert isinstance(node, File)
            node.synced = node.now
        elif what == "unlink":
            assert node is not None
            above.change(last, None, node)
        else:
            assert what == "rename"
            assert node is not None
            above.change(last, paths[1].rpartition("/")[2], node)

    def leave(self, target: Path, survives: Callable[[], bool], tear: Callable[[], str]) -> None:
        """Writes what one possible power cut leaves into the folder `target`."""
        _leave(self.root, target, survives, tear)


def _leave(
    folder: Folder, target: Path, survives: Callable[[], bool], tear: Callable[[], str]
) -> None:
    target.mkdir(parents=True)
    names = dict(folder.synced)
    for change in folder.pending:
        if survives():
            _apply(names, change)
    for name, node in names.items():
        if isinstance(node, Folder):
            _leave(node, target / name, survives, tear)
        else:
            (target / name).write_bytes(_bytes_left(node, tear()))


def _bytes_left(node: File, tear: str) -> bytes:
    if node.synced == node.now or tear == "all":
        return node.now
    return {
        "lost": node.synced or b"",
        "half": node.now[: len(node.now) // 2],
        "zeros": bytes(len(node.now)),
    }[tear]


TEARS = ("lost", "half", "zeros", "all")


def power_cuts(record: list[Operation], base: Path, mixes: int = 6) -> Iterator[tuple[int, Path]]:
    """Yields, for every prefix of a record, folders that a power cut there could leave.

    Args:
        record: all operations.
        base: a scratch folder; each state gets its own folder in it.
        mixes: random combinations per prefix, besides the eight uniform ones.

    Yields:
        The number of operations done before the cut, and the folder.
    """
    medium, count = Medium(), 0
    for done in range(len(record) + 1):
        if done:
            medium.do(record[done - 1])
        for survives, tear in _worlds(random.Random(done), mixes):
            count += 1
            target = base / f"cut-{count}"
            copy.deepcopy(medium).leave(target, survives, tear)
            yield done, target


def _worlds(
    chance: random.Random, mixes: int
) -> Iterator[tuple[Callable[[], bool], Callable[[], str]]]:
    for kept in (True, False):
        for tear in TEARS:
            yield partial(bool, kept), partial(str, tear)
    for _ in range(mixes):
        yield lambda: chance.random() < 0.5, lambda: chance.choice(TEARS)
