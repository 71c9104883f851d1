"""One installation at a time: two at once would each take the other's files for edited ones."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from llamaforge.errors import Occupied


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keeps others out for the block; the kernel frees the lock however the block ends.

    Args:
        path: a folder, or a file that is made, which nobody else can open.

    Raises:
        Occupied: another installation is under way.
    """
    kind = os.O_RDONLY | os.O_DIRECTORY if path.is_dir() else os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    handle = os.open(path, kind | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as why:
            raise Occupied(
                "another installation of a LlamaForge service is under way",
                hint=f"wait for it, then run this again (it holds {path})",
            ) from why
        yield
    finally:
        os.close(handle)
