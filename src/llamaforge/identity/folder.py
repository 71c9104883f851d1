"""An identity on disk: a private key with its certificate, and the authority that signed it.

Key and certificate stand in one file, `identity.pem`, so that a renewal replaces both with one
rename: a power cut leaves the old pair or the new one, never a half of each.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec

IDENTITY = "identity.pem"
"""The private key, then its certificate."""
AUTHORITY = "authority.pem"
"""The certificate of the fleet's authority."""
ABOUT = "about.json"
"""Whose identity it is, for programs that read no certificates; nobody is believed for it."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """Whose identity it is, and where it came from."""

    name: str = ""
    """The node's or the person's name."""
    token: str = ""
    """Id of the join token that it was given for; empty on the coordinator's own machine."""


def identity_file(folder: Path | str) -> Path:
    """The file with key and certificate."""
    return Path(folder) / IDENTITY


def authority_file(folder: Path | str) -> Path:
    """The file with the authority's certificate."""
    return Path(folder) / AUTHORITY


def complete(folder: Path | str) -> bool:
    """Whether an identity stands there."""
    return identity_file(folder).exists() and authority_file(folder).exists()


def about(folder: Path | str) -> About:
    """Whose identity stands there; nobody's where that can't be told."""
    try:
        return msgspec.json.decode((Path(folder) / ABOUT).read_bytes(), type=About)
    except (OSError, msgspec.MsgspecError):
        return About()


def save(
    folder: Path, *, key: str, certificate: str, authority: str, about: About | None = None
) -> None:
    """Writes an identity; only its owner can read it, and it is on the medium when this returns.

    Args:
        folder: made, with mode 0700, where it is missing.
        key: the private key, PEM.
        certificate: the certificate for it, PEM.
        authority: the authority's certificate, PEM.
        about: whose it is; None leaves what is written there.

    Raises:
        OSError: the folder can't be written; what was there before is unchanged.
    """
    if about is not None:
        write_secret(folder / ABOUT, msgspec.json.encode(about).decode())
    write_secret(authority_file(folder), authority)
    write_secret(identity_file(folder), key.strip() + "\n" + certificate.strip() + "\n")


def write_secret(path: Path, text: str) -> None:
    """Replaces a file, readable by its owner alone, in one step that survives a power cut."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
