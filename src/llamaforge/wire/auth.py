"""The fleet's token: who may talk to a coordinator.

Requests carry `Authorization: Bearer TOKEN`. The traffic itself is not encrypted yet, which is
why everything binds to the loopback address by default; mutual TLS comes with a later change.
"""

from __future__ import annotations

import hmac
import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path

from llamaforge.errors import FleetError


def header(token: str) -> dict[str, str]:
    """The header that every request carries."""
    return {"Authorization": f"Bearer {token}"}


def allowed(headers: Mapping[str, str], token: str) -> bool:
    """Whether a request carries the token; takes equally long for every wrong one."""
    given = headers.get("Authorization", "").encode("utf-8", "surrogateescape")
    return hmac.compare_digest(given, f"Bearer {token}".encode())


def read_token(path: Path) -> str:
    """Reads a token file.

    Raises:
        FleetError: it can't be read or is empty.
    """
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as why:
        raise FleetError(f"the token file {path} can't be read: {why}") from why
    if not token:
        raise FleetError(f"the token file {path} is empty")
    return token


def keep_token(path: Path) -> str:
    """Reads the token file, or makes one, so that a restart keeps the token.

    Only its owner can read it afterwards. A crash or a full disk leaves none rather than half.
    """
    if path.exists():
        path.chmod(0o600)
        return read_token(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_urlsafe(32)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(token + "\n")
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return token
