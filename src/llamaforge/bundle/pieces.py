"""A blob on its way in, piece by piece and from several sides; what stands survives a restart.

    incoming/DIGEST.part   the bytes, with room for all of them taken at the start
    incoming/DIGEST.have   one character for each piece: whether it stands

A piece counts only after its bytes are on the medium, so neither a SIGKILL nor a power cut makes
one stand that doesn't. Whether all of them are the blob, its SHA-256 tells at the end; it is
computed on the way, as far as the pieces stand without a gap.

Whoever fetches holds a lock on the first file, which ends with its process: of several processes
with one store, one fetches a blob.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from llamaforge.errors import IntegrityError

if TYPE_CHECKING:
    from llamaforge.bundle.store import BlobStore

PIECE = 4 << 20
"""Bytes in a piece. Nodes that share a blob wait at its end for the last pieces to go round: with
16 MiB, 1 GB to three nodes over 1 Gbit/s took a quarter longer."""
SMALL = 4 << 20
"""Blobs below this many bytes are not worth pieces."""
_READ = 1 << 20
_STANDS, _LACKS = b"+", b"."
_NO_FALLOCATE = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


class PieceFile:
    """The pieces of one blob; make it with `BlobStore.pieces`. Safe to use from several threads.

    `write` what arrives, `mark` each piece that is whole, then `commit`; or `close`, and what
    stands is still there the next time.

    Args:
        store: where the blob belongs.
        sha256: its digest, checked.
        size: its bytes.
        piece: bytes in a piece; 0: as always.

    Raises:
        BlockingIOError: somebody else is fetching it.
        OSError: the disk has no room for it, or refuses; what stood before still does.
    """

    def __init__(self, store: BlobStore, sha256: str, size: int, *, piece: int = 0) -> None:
        self.sha256, self.size, self.piece = sha256, size, piece or PIECE
        self.count = -(-size // self.piece)
        """Pieces in the blob."""
        self._store = store
        self._part, self._have = places(store, sha256)
        self._changed = threading.Condition()
        self._hashing = threading.Lock()
        self._digest, self._hashed = hashlib.sha256(), 0
        self._closed, self._users = False, 0
        self._file = _locked(self._part)
        try:
            self._note = os.open(self._have, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except BaseException:
            os.close(self._file)
            raise
        try:
            self._standing = self._found()
            self._take_room()
        except BaseException:
            self._give_up_empty()
            raise

    # ── what stands ───────────────────────────────────────────────────────────────────────────

    @property
    def missing(self) -> list[int]:
        """Numbers of the pieces that don't stand, in order."""
        return [number for number in range(self.count) if not self._standing[number]]

    @property
    def prefix(self) -> int:
        """Bytes that stand from the beginning on without a gap."""
        first = next(iter(self.missing), self.count)
        return min(first * self.piece, self.size)

    @property
    def stands(self) -> int:
        """Bytes that stand."""
        return sum(self.span(n)[1] for n in range(self.count) if self._standing[n])

    def span(self, number: int) -> tuple[int, int]:
        """Where a piece begins, and its bytes."""
        start = number * self.piece
        return start, min(self.piece, self.size - start)

    def wait(self, start: int, length: int, seconds: float) -> bool:
        """Waits until all pieces of a range stand. False when time, or the fetch, is over."""
        numbers = range(start // self.piece, -(-(start + length) // self.piece))
        until = time.monotonic() + seconds
        with self._changed:
            while not all(self._standing[number] for number in numbers):
                left = until - time.monotonic()
                if self._closed or left <= 0:
                    return False
                self._changed.wait(left)
            return True

    def open(self) -> int | None:
        """A file descriptor of one's own to read with; None once the fetch is over."""
        with self._changed:
            return None if self._closed else os.dup(self._file)

    # ── what arrives ──────────────────────────────────────────────────────────────────────────

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Puts bytes in their place; nothing stands yet.

        Raises:
            IntegrityError: they would stand beyond the end, or where a piece stands already: its
                digest may have been taken.
            OSError: the disk is full or refuses.
        """
        end = offset + len(data)
        if offset < 0 or end > self.size:
            raise IntegrityError(f"blob {self.sha256[:12]} is longer than its {self.size} bytes")
        if any(self._standing[offset // self.piece : -(-end // self.piece)]):
            raise IntegrityError(f"blob {self.sha256[:12]}: bytes from {offset} on stand already")
        with self._using():
            rest = memoryview(data)
            while rest:
                written = os.pwrite(self._file, rest, offset)
                rest, offset = rest[written:], offset + written

    def mark(self, number: int) -> None:
        """A piece has been written whole: from now on it stands. Raises OSError."""
        with self._using():
            os.fdatasync(self._file)
            os.pwrite(self._note, _STANDS, len(self._head()) + number)
            with self._changed:
                self._standing[number] = True
                self._changed.notify_all()
            if self._hashing.acquire(blocking=False):  # else another thread is at it
                try:
                    self._hash()
                finally:
                    self._hashing.release()

    def commit(self) -> Path:
        """Checks the digest, and gives the blob its name.

        Returns:
            The blob's path.

        Raises:
            IntegrityError: the bytes are not what the digest promises; nothing is left behind.
            OSError: the disk refuses; the pieces still stand.
        """
        with self._using():
            with self._hashing:
                self._hash()
            found = self._digest.hexdigest()
            if self._hashed != self.size or found != self.sha256:
                self.discard()
                raise IntegrityError(
                    f"blob {self.sha256[:12]} arrived damaged: {self._hashed} of {self.size} "
                    f"bytes, SHA-256 {found[:12]}",
                    hint="run the same command again",
                )
            os.fchmod(self._file, 0o444)
            os.fsync(self._file)
            target = self._store.blob(self.sha256)
            self._store.trust(self._part, target, self.sha256)
            self._part.rename(target)
            self._have.unlink(missing_ok=True)
            self.close()
        return target

    def close(self) -> None:
        """Ends the fetch; what stands is kept. Never waits: a thread that still writes ends it."""
        with self._changed:
            if not self._closed:
                self._closed = True
                self._changed.notify_all()
                self._close_unused()

    def discard(self) -> None:
        """Ends the fetch and forgets what stands."""
        self._part.unlink(missing_ok=True)
        self._have.unlink(missing_ok=True)
        self.close()

    @contextmanager
    def _using(self) -> Iterator[None]:
        """Around every use of the files: a closed number could be another file's already."""
        with self._changed:
            if self._closed:
                raise OSError(errno.EBADF, "the fetch is over", str(self._part))
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                if self._closed:
                    self._close_unused()

    def _close_unused(self) -> None:
        if not self._users and self._file >= 0:
            os.close(self._file)
            os.close(self._note)
            self._file = self._note = -1

    # ── on disk ───────────────────────────────────────────────────────────────────────────────

    def _head(self) -> bytes:
        return _head(self.size, self.piece)

    def _found(self) -> list[bool]:
        """Which pieces stand by the note of an earlier fetch; an unfitting one is made anew."""
        head = self._head()
        text = os.pread(self._note, len(head) + self.count + 1, 0)
        fits = text.startswith(head) and len(text) == len(head) + self.count
        if fits and os.fstat(self._file).st_size == self.size:
            return [mark == _STANDS[0] for mark in text[len(head) :]]
        os.ftruncate(self._note, 0)
        os.pwrite(self._note, head + _LACKS * self.count, 0)
        return [False] * self.count

    def _take_room(self) -> None:
        """Takes the room for all bytes now, so that a full disk is known before the network."""
        if not self.size or all(self._standing):
            return
        try:
            os.posix_fallocate(self._file, 0, self.size)
        except OSError as why:
            if why.errno not in _NO_FALLOCATE:
                raise OSError(why.errno, why.strerror, str(self._part)) from why
            os.ftruncate(self._file, self.size)

    def _give_up_empty(self) -> None:
        """After a failed start: what stood before still does; else nothing is left."""
        if not any(getattr(self, "_standing", ())):
            self._part.unlink(missing_ok=True)
            self._have.unlink(missing_ok=True)
        os.close(self._file)
        os.close(self._note)

    def _hash(self) -> None:
        """Takes the digest as far as pieces stand without a gap."""
        end = self.prefix
        while self._hashed < end:
            data = os.pread(self._file, min(_READ, end - self._hashed), self._hashed)
            if not data:
                return
            self._digest.update(data)
            self._hashed += len(data)


def places(store: BlobStore, sha256: str) -> tuple[Path, Path]:
    """Where the bytes and the note of a blob's pieces are."""
    folder = store.folder("incoming")
    return folder / f"{sha256}.part", folder / f"{sha256}.have"


def standing(store: BlobStore, sha256: str) -> int:
    """Bytes of a blob that stand from its beginning on, after a broken fetch or upload."""
    part, have = places(store, sha256)
    try:
        head, marks = have.read_bytes().split(b"\n", 1)
        size, piece = map(int, head.split()[2:])
        if part.stat().st_size != size or not piece:
            return 0
    except (OSError, ValueError):
        return 0
    whole = len(marks) - len(marks.lstrip(_STANDS))
    return min(whole * piece, size)


def room_taken(store: BlobStore, sha256: str) -> int:
    """Bytes of disk that a broken fetch or upload of a blob has already."""
    try:
        return places(store, sha256)[0].stat().st_blocks * 512
    except OSError:
        return 0


def is_locked(path: Path) -> bool:
    """Whether somebody is fetching into this file now."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _head(size: int, piece: int) -> bytes:
    return b"pieces 1 %d %d\n" % (size, piece)


def _locked(path: Path) -> int:
    """Opens the file and holds it alone. Raises BlockingIOError where somebody else does."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file).st_ino == path.stat().st_ino:
                return file
        except FileNotFoundError:
            pass  # its name went before we had the lock: the next one is ours
        except BaseException:
            os.close(file)
            raise
        os.close(file)
