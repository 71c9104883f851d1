"""A cache has one limit for all that is in it: what was used longest ago goes first.

    CACHE/blobs/   blobs, references to files outside, digests, partial fetches (`bundle.store`)
    CACHE/rows/    canonical rows, a folder for each dataset (`bundle.dataset`)
    CACHE/tokens/  tokenised rows, a folder for each dataset and tokenizer

What a lease keeps (`bundle.lease`) never goes. Sizes are what the disk gives for a file, not its
length: a partial fetch has taken its room at the start. Whatever else lies in the folder counts,
and stays.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from llamaforge.bundle import lease
from llamaforge.bundle.pieces import is_locked
from llamaforge.bundle.store import BlobStore, Reference
from llamaforge.errors import NoSpace

Kind = Literal["blobs", "partial", "references", "digests", "rows", "tokens", "other"]
KINDS: tuple[Kind, ...] = (
    "blobs", "partial", "references", "digests", "rows", "tokens", "other"
)  # fmt: skip
FAIR_SHARE = 5
"""A cache without a limit takes this part of its file system: one fifth."""
LEAST_BYTES = 10 << 30
"""Or this much, where that is no more than half of the file system."""
SPARE_SHARE, MOST_SPARE = 50, 1 << 30
"""Left free for everybody else: one part in that many of the file system, and at most so much."""
STALE_SECONDS = 3600.0
"""A nameless file of a broken fetch that nobody has written to for so long is rubbish."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing in a cache that can go as a whole."""

    kind: Kind
    paths: tuple[Path, ...]
    size: int
    """Bytes on disk."""
    used: float
    """Unix time in seconds of its last use."""
    digest: str = ""
    """Of the blob that it holds; empty for other things."""
    dead: bool = False
    """Whether it is of no use to anybody."""
    busy: bool = False
    """Whether somebody is writing it."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a sweep found, and what went (or would have gone)."""

    gone: tuple[Item, ...]
    left: tuple[Item, ...]
    kept: int
    """Bytes among `left` that a lease, or the caller, keeps."""
    limit: int
    """Bytes that the sweep aimed at."""

    @property
    def size(self) -> int:
        """Bytes that are left."""
        return sum(item.size for item in self.left)


class Cache:
    """One node's, person's or coordinator's cache.

    Args:
        folder: the cache's folder, as `--cache-dir` names it.
        limit: most bytes; None: a fair share of the disk.
        in_use: tells the digests that are in use besides the leased ones.
        recent: seconds for which whatever was used is kept in any case.
    """

    def __init__(
        self,
        folder: Path,
        limit: int | None = None,
        *,
        in_use: Callable[[], Iterable[str]] = tuple,
        recent: float = 0.0,
    ) -> None:
        self.folder, self._asked, self._in_use, self._recent = folder, limit, in_use, recent
        self._store = BlobStore(folder / "blobs")

    @property
    def limit(self) -> int:
        """Most bytes."""
        if self._asked is not None:
            return self._asked
        total = self._disk().total
        return max(total // FAIR_SHARE, min(LEAST_BYTES, total // 2))

    @property
    def free(self) -> int:
        """Bytes of its disk that it may still take."""
        disk = self._disk()
        return max(disk.free - min(disk.total // SPARE_SHARE, MOST_SPARE), 0)

    def survey(self) -> list[Item]:
        """All that is in the cache; what goes away meanwhile is left out."""
        found = [*self._blobs(), *self._partial(), *self._folders("rows"), *self._folders("tokens")]
        known = {path for item in found for path in item.paths}
        for path in self.folder.rglob("*"):
            beside = any(parent in known for parent in (path, *path.parents))
            ours = path.parent.name == lease.FOLDER or path.name == lease.LOCK
            if not beside and not ours and (seen := _stat(path)) and not path.is_dir():
                found.append(
                    Item(
                        kind="digests" if path.parent.name == "digests" else "other",
                        paths=(path,),
                        size=_allocated(seen),
                        used=max(seen.st_atime, seen.st_mtime),
                    )
                )
        return found

    def sweep(self, *, keep: int | None = None, needed: int = 0, dry_run: bool = False) -> Sweep:
        """Makes what is left, and `needed` bytes more, fit into the limit and onto the disk.

        Args:
            keep: bytes to aim at instead of the limit.
            needed: bytes that are about to come.
            dry_run: only say what would go.

        Raises:
            OSError: the cache can't be read or changed.
        """
        limit = self.limit if keep is None else keep
        with lease.sweeping(self.folder):
            items = self.survey()
            kept = self._kept(items)
            size, free = sum(item.size for item in items), self.free
            gone: list[Item] = []
            for item in sorted(items, key=lambda item: (not item.dead, item.used)):
                fits = size + needed <= limit and needed <= free
                if (fits and not item.dead) or item.kind == "other" or id(item) in kept:
                    continue
                if not dry_run:
                    _remove(item)
                size, free = size - item.size, free + item.size
                gone.append(item)
        went = set(map(id, gone))
        left = tuple(item for item in items if id(item) not in went)
        held = sum(item.size for item in left if id(item) in kept)
        return Sweep(gone=tuple(gone), left=left, kept=held, limit=limit)

    def make_room(self, needed: int, *, what: str) -> Sweep:
        """Makes room for bytes that are about to come; whoever takes them holds a lease.

        A limit that somebody has set holds; the fair share gives way where the disk has room.

        Args:
            needed: bytes.
            what: what is to come, for messages: "the bundle of job x".

        Raises:
            NoSpace: there is no room even when all has gone that may go.
            OSError: the cache can't be read or changed.
        """
        done = self.sweep(needed=needed)
        if needed > self.free:
            raise NoSpace(
                f"{what} needs {text(needed)} in {self.folder}, and the disk has "
                f"{text(self.free)} to spare",
                hint="free some space there, or choose another place with --cache-dir; "
                "what could go: llamaforge clean --dry-run",
            )
        if self._asked is not None and done.size + needed > self._asked:
            raise NoSpace(
                f"{what} needs {text(needed)} in {self.folder}: {text(done.size)} of its limit of "
                f"{text(self._asked)} are in use",
                hint="raise LLAMAFORGE_CACHE_LIMIT (--cache-limit), or run fewer jobs at once",
            )
        return done

    # ── what is there ─────────────────────────────────────────────────────────────────────────

    def _blobs(self) -> Iterator[Item]:
        for path in self._store.root.glob("blobs/*/*"):
            if seen := _stat(path):
                note = self._store.digest_note(Reference.of(path))
                yield _item("blobs", (path, note), digest=path.name, used=seen.st_atime)
        for path in self._store.root.glob("refs/*/*.json"):
            if seen := _stat(path):
                paths: tuple[Path, ...] = (path,)
                try:
                    reference = msgspec.json.decode(path.read_bytes(), type=Reference)
                    paths = (path, self._store.digest_note(reference))
                    dead = not reference.unchanged()
                except (OSError, msgspec.MsgspecError):
                    dead = True
                used = max(seen.st_atime, seen.st_mtime)
                yield _item("references", paths, digest=path.stem, used=used, dead=dead)

    def _partial(self) -> Iterator[Item]:
        names: dict[str, list[Path]] = {}
        for path in self._store.root.glob("incoming/*"):
            names.setdefault(path.name.partition(".")[0], []).append(path)
        for name, paths in names.items():
            used = max((seen.st_mtime for p in paths if (seen := _stat(p))), default=0.0)
            parts = [path for path in paths if path.suffix == ".part" and len(name) == 64]
            dead = not parts and time.time() - used > STALE_SECONDS
            busy = any(map(is_locked, parts)) if parts else not dead
            yield _item(
                "partial",
                tuple(paths),
                digest=name if parts else "",
                used=used,
                dead=dead,
                busy=busy,
            )

    def _folders(self, kind: Literal["rows", "tokens"]) -> Iterator[Item]:
        for folder in (self.folder / kind).glob("*"):
            seen = [found for path in _files(folder) if (found := _stat(path))]
            used = max((max(s.st_atime, s.st_mtime) for s in seen), default=0.0)
            yield Item(kind=kind, paths=(folder,), size=sum(map(_allocated, seen)), used=used)

    def _kept(self, items: Iterable[Item]) -> set[int]:
        """Ids of the items that are in use."""
        terms = lease.held(self.folder)
        digests = {*self._in_use(), *(digest for one in terms for digest in one.digests)}
        since = min((one.since for one in terms), default=float("inf"))
        since = min(since, time.time() - self._recent if self._recent else since)
        inside = {path for digest in digests if (path := self._inside(digest))}
        return {
            id(item)
            for item in items
            if item.busy
            or item.digest in digests
            or item.used >= since
            or any(path in inside for path in item.paths)
        }

    def _inside(self, digest: str) -> Path | None:
        """The folder of rows in this cache that a blob refers into, if it does."""
        try:
            raw = self._store.reference(digest).read_bytes()
            path = Path(msgspec.json.decode(raw, type=Reference).path)
        except (OSError, msgspec.MsgspecError):
            return None
        return path.parent if path.parent.parent == (self.folder / "rows").resolve() else None

    def _disk(self) -> shutil._ntuple_diskusage:
        place = next(p for p in (self.folder, *self.folder.absolute().parents) if p.exists())
        return shutil.disk_usage(place)


def text(size: int) -> str:
    """Bytes for people, in the units of settings."""
    for unit in "TGMK":
        scale = 1 << (10 * ("KMGT".index(unit) + 1))
        if size >= scale:
            return (
                f"{size / scale:.3g} {unit}iB"
                if size < 1000 * scale
                else f"{size // scale} {unit}iB"
            )
    return f"{size} bytes"


def _item(
    kind: Kind,
    paths: tuple[Path, ...],
    *,
    used: float,
    digest: str = "",
    dead: bool = False,
    busy: bool = False,
) -> Item:
    size = sum(_allocated(seen) for path in paths if (seen := _stat(path)))
    return Item(kind=kind, paths=paths, size=size, used=used, digest=digest, dead=dead, busy=busy)


def _remove(item: Item) -> None:
    """Deletes an item; a report of rows goes first, so that half a folder is none."""
    for path in item.paths:
        if path.is_dir():
            (path / "report.json").unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[Path]:
    yield from (path for path in folder.rglob("*") if not path.is_dir())


def _stat(path: Path) -> os.stat_result | None:
    with contextlib.suppress(OSError):
        return path.lstat()
    return None


def _allocated(seen: os.stat_result) -> int:
    return seen.st_blocks * 512
