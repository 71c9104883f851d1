"""Reads small files that ranks write into their job's folder, and believes nothing about them.

A rank, or somebody's script, may put anything there: a pipe that would block the worker, a link to
the worker's key, or a file without end.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read(path: Path, most: int, *, offset: int = 0) -> bytes:
    """At most `most` bytes of a plain file from `offset` on; empty where there is no such file.

    Links, hard ones too, and whatever is no plain file count as absent.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        seen = os.fstat(file)
        if not stat.S_ISREG(seen.st_mode) or seen.st_nlink != 1:
            return b""
        return os.pread(file, most, offset)
    except OSError:
        return b""
    finally:
        os.close(file)


def size(path: Path) -> int:
    """Bytes of a plain file; 0 where there is none."""
    try:
        seen = path.lstat()
    except OSError:
        return 0
    return seen.st_size if stat.S_ISREG(seen.st_mode) else 0
