"""What is in use in a cache that several processes share: a lease, which ends with its process.

A lease is a file below `CACHE/leases/` that its holder has locked (flock): a crash frees it, and
nobody has to guess whether a process id still means the same process. A lease with a name can
outlast its holder for a while: a coordinator's jobs are there although it is being started again.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

FOLDER = "leases"
LOCK = "evict.lock"
"""Held while leases are taken and while a cache is swept: what is leased does not go."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a lease keeps."""

    pid: int
    """Whose it is, for people."""
    since: float
    """Unix time in seconds: whatever has been used from then on is in use."""
    digests: tuple[str, ...] = ()
    """Blobs that are in use, however long ago they were touched."""
    lasts: float = 0.0
    """Seconds for which the digests are kept after the holder's death, from the last change on."""


class Lease:
    """Keeps blobs, and whatever is used from now on, until `free` or the end of the process.

    Args:
        cache: the cache's folder.
        digests: of the blobs in use.
        name: who takes the lease takes over what an earlier process left under the same name.
        lasts: seconds for which the digests are kept after a crash; needs a name.

    Raises:
        OSError: the cache can't be written.
    """

    def __init__(
        self, cache: Path, digests: Iterable[str] = (), *, name: str = "", lasts: float = 0.0
    ) -> None:
        self._cache, self._lasts, self._since = cache, lasts, time.time()
        folder = cache / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        with sweeping(cache):
            self._file, self._path = _own(folder, name)
            try:
                self._write(digests)
            except BaseException:
                self.free()
                raise

    def change(self, digests: Iterable[str]) -> None:
        """Keeps other blobs from now on. Raises OSError."""
        with sweeping(self._cache):
            self._write(digests)

    def _write(self, digests: Iterable[str]) -> None:
        terms = Terms(pid=os.getpid(), since=self._since, digests=tuple(digests), lasts=self._lasts)
        data = msgspec.json.encode(terms)
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, data, 0)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.free()

    def free(self) -> None:
        """Ends the lease."""
        if self._file >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1


@contextmanager
def sweeping(cache: Path) -> Iterator[None]:
    """Holds the cache's lock; waits for whoever has it, which takes as long as deleting files.

    Raises:
        OSError: the cache can't be written.
    """
    cache.mkdir(parents=True, exist_ok=True)
    lock = os.open(cache / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def held(cache: Path) -> list[Terms]:
    """The leases that hold; those of the dead are removed. Call it while `sweeping`."""
    found = []
    for path in sorted((cache / FOLDER).glob("*")):
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            terms = _terms(file)
            if not _is_free(file):
                found.append(terms)
            elif os.fstat(file).st_mtime + terms.lasts > time.time():
                found.append(msgspec.structs.replace(terms, since=float("inf")))
            else:
                path.unlink(missing_ok=True)
        finally:
            os.close(file)
    return found


def _own(folder: Path, name: str) -> tuple[int, Path]:
    """A locked file of one's own: that of the name, unless it is somebody else's now."""
    if name:
        path = folder / name
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if _is_free(file):
            return file, path
        os.close(file)
    file, made = tempfile.mkstemp(prefix=f"{os.getpid()}.", dir=folder)
    fcntl.flock(file, fcntl.LOCK_EX)
    return file, Path(made)


def _is_free(file: int) -> bool:
    """Whether nobody else holds a file; then we do."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _terms(file: int) -> Terms:
    """What a lease says; a torn one keeps nothing."""
    try:
        return msgspec.json.decode(os.pread(file, 64 << 20, 0), type=Terms)
    except msgspec.MsgspecError:
        return Terms(pid=0, since=float("inf"))
