"""What an installation remembers: its options, and a digest of every file that it wrote.

With it, asking again needs no options, an edited file is told from ours, and removal takes away
exactly what was put there. Only root (or the service's person) can read it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from llamaforge.errors import UserError
from llamaforge.service.request import Request


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The state of an installation."""

    request: Request = Request()
    files: dict[str, str] = {}
    """SHA-256 of what was written, by path."""
    aside: tuple[str, ...] = ()
    """Files `….new` beside edited ones."""
    folders: tuple[str, ...] = ()
    """Folders that were made, parents first."""
    pending: dict[str, str] = {}
    """SHA-256 of what an installation that was cut short may have written, by path."""
    made_user: bool = False
    """Whether the service's user did not exist before."""


def digest(content: str) -> str:
    """SHA-256 of a file's text."""
    return hashlib.sha256(content.encode()).hexdigest()


def read(path: Path) -> Manifest:
    """The manifest at a path; an empty one when nothing was installed.

    Raises:
        UserError: it is damaged.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return Manifest()
    except PermissionError:  # a dry run without root sees the machine as new
        return Manifest()
    except msgspec.MsgspecError as why:
        raise UserError(
            f"{path} is damaged: {why}",
            hint=f"remove it and install again; edited files are kept: sudo rm {path}",
        ) from why


def encode(manifest: Manifest) -> str:
    """The file's text."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1).decode() + "\n"
