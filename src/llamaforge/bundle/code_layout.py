"""A script's folder on a node: real files, since scripts write and change what is beside them.

They are copies (shared blocks where the file system can) and not the store's own files: a script
that changes one must not change what the next job gets.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath

from llamaforge.bundle.manifest import Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import IntegrityError
from llamaforge.spec.script import CODE

_FICLONE = 0x40049409
"""ioctl: share a file's blocks until one of both is written to."""


def lay_out(
    store: BlobStore,
    manifest: Manifest,
    folder: Path,
    *,
    executable: Collection[str] = (),
    links: Mapping[str, str] | None = None,
) -> None:
    """Makes `folder` hold what stands below `code/` in the bundle.

    Args:
        store: has all blobs.
        manifest: of the bundle.
        folder: made; must not exist.
        executable: files that may be run as programs.
        links: symbolic links and what they point to.

    Raises:
        IntegrityError: a path or a link leaves the folder, or a blob is missing or has changed.
        OSError: the disk is full or refuses.
    """
    manifest.check()
    links = links or {}
    folder.mkdir(parents=True)
    for entry in manifest.entries:
        top, _, path = entry.path.partition("/")
        if top == CODE and path:
            _check_path(path, links)
            _copy(store.path(entry.sha256), folder / path)
            (folder / path).chmod(0o755 if path in executable else 0o644)
    for path, to in links.items():
        check_link(path, to)
        _check_path(str(PurePosixPath(path).parent), links)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).symlink_to(to)


def check_link(path: str, to: str) -> None:
    """Refuses a link that leads out of the folder. Raises IntegrityError."""
    place, target = PurePosixPath(path), PurePosixPath(to)
    end = PurePosixPath(os.path.normpath(place.parent / target))
    absolute = place.is_absolute() or target.is_absolute()
    if absolute or ".." in (*place.parts, *end.parts) or not place.parts:
        raise IntegrityError(f"link {path!r} to {to!r} leads out of the script's folder")


def _check_path(path: str, links: Mapping[str, str]) -> None:
    """Refuses a path through a link: nothing is to be written where that may lead."""
    if links.keys() & {path, *map(str, PurePosixPath(path).parents)}:
        raise IntegrityError(f"path {path!r} in the script's folder goes through a link")


def _copy(blob: Path, target: Path) -> None:
    """Copies a file; where the file system can share its blocks, at no cost."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with blob.open("rb") as source, target.open("xb") as copy:
        try:
            fcntl.ioctl(copy.fileno(), _FICLONE, source.fileno())
        except OSError:  # most file systems can't, and none across two
            shutil.copyfileobj(source, copy, 1 << 20)
