"""The settings file of a service: lines `NAME=value` with the names of the environment variables.

    # /etc/llamaforge/worker.conf
    MASTER_ADDR=192.168.1.10
    export GLOO_SOCKET_IFNAME=eth0

A plain line is a setting of the worker; one with `export` goes into the environment of the ranks
as it stands. The service reads the file itself, not systemd, so that a reload reads it anew. A
coordinator's file (`coordinator.conf`) is the same, but has no ranks to export to.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from llamaforge.errors import SpecError

PATH = "/etc/llamaforge/worker.conf"
"""Where the worker's file is."""
COORDINATOR_PATH = "/etc/llamaforge/coordinator.conf"
"""Where the coordinator's file is."""
LARGEST = 1 << 20
"""Bytes; a larger file is not a settings file."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class SettingsFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a settings file says."""

    path: str
    values: dict[str, str] = {}
    """By variable."""
    exports: dict[str, str] = {}
    """For the environment of the ranks."""


def read(path: Path, known: Iterable[str], of: str = "worker") -> SettingsFile:
    """Reads a settings file.

    Args:
        path: the file.
        known: the names that a plain line may set.
        of: whose settings they are: `worker`, or `coordinator`, which takes no `export`.

    Raises:
        SpecError: it can't be read, or a line is wrong; names file and line.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        text = content.decode()
    except OSError as why:
        raise SpecError(
            f"the settings file {path} can't be read: {why.strerror}",
            hint="look at its owner and mode, or name another one with --config",
        ) from why
    except UnicodeDecodeError as why:
        raise SpecError(f"{path} is not a text file: {why.reason} at byte {why.start}") from why
    if len(content) > LARGEST:
        raise SpecError(f"{path} has more than {LARGEST} bytes: it is no settings file")
    if "\0" in text:  # no variable can hold one, so that no rank would start
        raise SpecError(f"{path} is not a text file: it holds a zero byte")
    return parse(text, str(path), known, of)


def parse(text: str, path: str, known: Iterable[str], of: str = "worker") -> SettingsFile:
    """Parses the text of a settings file; see `read`."""
    names = list(known)
    values: dict[str, str] = {}
    exports: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        where = f"{path}:{number}"
        if not (stripped := line.strip()) or stripped.startswith("#"):
            continue
        exported = stripped.startswith("export ")
        name, equals, value = stripped.removeprefix("export ").partition("=")
        name = name.strip()
        if not equals or not _NAME.fullmatch(name):
            raise SpecError(f"{where}: {stripped!r} is not NAME=value", hint=_HOW)
        if exported and of != "worker":
            raise SpecError(f"{where}: the {of} has no ranks", hint=f"leave `export` out: {name}=…")
        if not exported and name not in names:
            raise SpecError(
                f"{where}: {name} is not a setting of the {of}", hint=_meant(name, names, of)
            )
        target = exports if exported else values
        if name in target:
            raise SpecError(f"{where}: {name} is set twice", hint="keep one of the lines")
        target[name] = _unquoted(value.strip(), where)
    return SettingsFile(path=path, values=values, exports=exports)


_HOW = "a line is a comment (#), NAME=value, or export NAME=value for the ranks' environment"


def _meant(name: str, names: list[str], of: str) -> str:
    close = difflib.get_close_matches(name.upper(), names, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    if of != "worker":
        return meant.strip() or f"its settings are {', '.join(names)}"
    return f"{meant}To pass it to the ranks write: export {name}=…"


def _unquoted(value: str, where: str) -> str:
    """The value without a pair of quotes around it, or without a comment after it."""
    if value[:1] not in ('"', "'"):
        return re.split(r"\s#", value, maxsplit=1)[0].rstrip()
    if len(value) < 2 or value[-1] != value[0]:
        raise SpecError(f"{where}: the quote in {value!r} is not closed", hint=_HOW)
    return value[1:-1]
