"""What is in use in a cache that several processes share: a lease, which ends with its process.

A lease is a file below `CACHE/leases/` that its holder has locked (flock): a crash frees it, and
nobody has to guess whether a process id still means the same process.
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


class Lease:
    """Keeps blobs, and whatever is used from now on, until `free` or the end of the process.

    Args:
        cache: the cache's folder.
        digests: of the blobs in use.

    Raises:
        OSError: the cache can't be written.
    """

    def __init__(self, cache: Path, digests: Iterable[str] = ()) -> None:
        self._cache = cache
        terms = Terms(pid=os.getpid(), since=time.time(), digests=tuple(digests))
        folder = cache / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        with sweeping(cache):
            self._file, name = tempfile.mkstemp(prefix=f"{terms.pid}.", dir=folder)
            self._path = Path(name)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX)
                os.write(self._file, msgspec.json.encode(terms))
            except BaseException:
                self.free()
                raise

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
    """The leases whose holders live; those of the dead are removed. Call it while `sweeping`."""
    found = []
    for path in sorted((cache / FOLDER).glob("*")):
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)  # nobody holds it
        except BlockingIOError:
            found.append(msgspec.json.decode(path.read_bytes(), type=Terms))
        finally:
            os.close(file)
    return found
