"""SHA-256 of files of any size."""

from __future__ import annotations

import hashlib
from pathlib import Path

_CHUNK = 1 << 20


def of_file(path: Path) -> str:
    """SHA-256 of a file's content in hexadecimal, read piece by piece.

    Raises:
        OSError: it can't be read.
    """
    total = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            total.update(piece)
    return total.hexdigest()
