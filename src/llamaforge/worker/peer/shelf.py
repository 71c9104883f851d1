"""What this node has for its peers: whole blobs, and those that it is fetching now.

Threads of the peer port ask here; the event loop says what is being fetched.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from llamaforge.bundle.pieces import PieceFile
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import IntegrityError

BEGIN_SECONDS = 5.0
"""How long a peer that asks too early waits for this node to begin fetching a blob."""
PIECE_SECONDS = 10.0
"""How long a peer waits for a piece before it is told to ask again."""


class Later(Exception):
    """It is being fetched, and has not come yet."""


class Shelf:
    """The blobs of one node.

    Args:
        store: its blobs.
    """

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._fetched: dict[str, PieceFile] = {}
        self._elsewhere: set[str] = set()
        self._changed = threading.Condition()

    @contextmanager
    def fetching(self, pieces: PieceFile) -> Iterator[None]:
        """While a blob is being fetched here, its pieces can be had as they come."""
        with self._changed:
            self._fetched[pieces.sha256] = pieces
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._fetched.pop(pieces.sha256, None)
                self._changed.notify_all()

    @contextmanager
    def elsewhere(self, sha256: str) -> Iterator[None]:
        """While another process with the same cache fetches a blob: it is the one to ask."""
        with self._changed:
            self._elsewhere.add(sha256)
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._elsewhere.discard(sha256)

    def size(self, sha256: str) -> int | None:
        """Bytes of a blob that is here or on its way; None where it is neither."""
        with self._changed:
            pieces = self._fetched.get(sha256)
        if pieces is not None:
            return pieces.size
        try:
            return self._store.path(sha256).stat().st_size
        except (IntegrityError, OSError):
            return None

    def open(self, sha256: str, start: int, length: int) -> int | None:
        """A file descriptor in which a range stands; it is the caller's to close.

        Waits for a piece that is on its way, and shortly for a fetch that has yet to begin.

        Raises:
            Later: it is on its way and has not come in time.
        """
        begin = time.monotonic() + BEGIN_SECONDS
        while True:
            with self._changed:
                pieces = self._fetched.get(sha256)
                lent = sha256 in self._elsewhere
            if pieces is not None:
                if not pieces.wait(start, length, PIECE_SECONDS):
                    raise Later(sha256)
                file = pieces.open()
                if file is not None:
                    return file
            try:
                return os.open(self._store.path(sha256), os.O_RDONLY | os.O_CLOEXEC)
            except (IntegrityError, OSError):
                pass  # not here, or not any more
            with self._changed:
                left = begin - time.monotonic()
                if lent or left <= 0:
                    return None
                if sha256 not in self._fetched:
                    self._changed.wait(left)
