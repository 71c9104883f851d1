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


def check_disk(folder: Path, needed: int, *, what: str, option: str) -> None:
    """Refuses a folder that can't take a job's files, before the job starts.

    Args:
        folder: it need not exist yet.
        needed: bytes.
        what: what will be written there, in the plural: "checkpoints".
        option: the option that chooses another place.

    Raises:
        UserError: it can't be written to, or has too little space: says how much is needed and
            how much is free.
    """
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(
            f"{what} can't be written to {folder}: {existing} is not a folder you may write to",
            hint=f"choose another place with {option}",
        )
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"{what} in {folder} need {_megabytes(needed)}, {_megabytes(free)} are free",
            hint=f"free some space, or choose another place with {option}",
        )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
