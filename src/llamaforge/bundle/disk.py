"""The few disk operations that a durable commit is made of, as a seam.

`bundle.checkpoints` says in which order they happen; here is what each one does on a real disk.
Tests replace this class by a recorder and replay every prefix of its record as a power cut.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from llamaforge.errors import UserError


class Disk:
    """A real disk. Every method raises OSError as the operating system does."""

    def make_folder(self, path: Path) -> None:
        """Makes one folder and its missing parents."""
        path.mkdir(parents=True, exist_ok=True)

    def write(self, path: Path, data: bytes) -> None:
        """Writes a whole file; nothing is durable yet."""
        path.write_bytes(data)

    def sync_file(self, path: Path) -> None:
        """Returns when the file's bytes are on the medium."""
        _fsync(path, os.O_RDONLY)

    def sync_folder(self, path: Path) -> None:
        """Returns when the folder's entries (names made, renamed, removed) are on the medium."""
        _fsync(path, os.O_RDONLY | os.O_DIRECTORY)

    def rename(self, old: Path, new: Path) -> None:
        """Gives a folder another name; `new` must not exist."""
        old.rename(new)

    def remove(self, path: Path) -> None:
        """Removes a folder and all that is in it; one that is already gone is fine."""
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)


def check_disk(root: Path, needed: int) -> None:
    """Refuses a folder that can't take checkpoints, before the job starts.

    Args:
        root: the folder of checkpoints; it need not exist yet.
        needed: bytes, see `checkpoints.free_bytes_needed`.

    Raises:
        UserError: it can't be written to, or has too little space: says how much and how much is
            free.
    """
    existing = next(place for place in (root, *root.absolute().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(
            f"checkpoints can't be written to {root}: {existing} is not a folder you may write to",
            hint="choose another place with --checkpoint-dir",
        )
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"checkpoints in {root} need {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free",
            hint="free some space, or choose another place with --checkpoint-dir",
        )


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
