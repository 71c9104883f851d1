"""The list of a bundle's files: logical path, SHA-256, size."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath
from typing import Annotated

import msgspec
from msgspec import Meta

from llamaforge.errors import IntegrityError


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a bundle."""

    path: str
    """Where the file stands inside the bundle, such as `model/config.json`; always relative."""
    sha256: str
    size: Annotated[int, Meta(ge=0, le=2**53)]
    """Bytes."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """All files of a bundle, sorted by path."""

    entries: tuple[Entry, ...] = ()

    def digest(self, under: str = "") -> str:
        """SHA-256 over the paths and digests of the entries whose path starts with `under`."""
        total = hashlib.sha256()
        for entry in self.entries:
            if entry.path.startswith(under):
                total.update(f"{entry.path}\0{entry.sha256}\n".encode())
        return total.hexdigest()

    def check(self) -> None:
        """Refuses a manifest from a peer whose paths leave the bundle's folder.

        Raises:
            IntegrityError: a path is absolute, climbs, is empty or stands twice, or a digest is
                not 64 hexadecimal digits.
        """
        seen: set[str] = set()
        for entry in self.entries:
            parts = PurePosixPath(entry.path).parts
            outside = not parts or entry.path.startswith("/") or ".." in parts or "\0" in entry.path
            if outside or entry.path in seen:
                raise IntegrityError(f"bundle path {entry.path!r} is not usable")
            check_digest(entry.sha256)
            seen.add(entry.path)


def check_digest(text: str) -> None:
    """Refuses a peer's text that is not 64 hexadecimal digits. Raises IntegrityError."""
    if len(text) != 64 or set(text) - set("0123456789abcdef"):
        raise IntegrityError(f"digest {text[:80]!r} is not a SHA-256")
