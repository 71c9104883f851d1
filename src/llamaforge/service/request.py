"""What a person asks the installed service to be: checked, remembered, and merged when asked again.

Options that are not given keep what was chosen before, so that an update needs none; an empty
value takes an option back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

import msgspec

from llamaforge.errors import UserError
from llamaforge.service.kind import WORKER, Kind
from llamaforge.spec.fleet import variables

CPU_POLICIES = ("other", "batch", "idle", "fifo", "rr")
NUMA_POLICIES = ("default", "preferred", "bind", "interleave", "local")
LEAST_MEMORY = 64 << 20
"""Bytes; with less the worker can't even start. Who writes 8 means 8G."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """All options of `llamaforge worker install` that say how the service shall be.

    A coordinator's request leaves empty what is about ranks.
    """

    settings: dict[str, str] = {}
    """Settings of the service by variable, for its settings file."""
    user: str = ""
    """The person whose files the worker uses; the service's own user when empty."""
    group: str = ""
    memory: str = ""
    """MemoryMax=: bytes with K, M, G or T, or a share with %."""
    cpu: str = ""
    """CPUQuota=: a percentage of one core; 150% is one and a half."""
    nice: str = ""
    cpu_policy: str = ""
    numa_node: str = ""
    """NUMAMask=: numbers and ranges of nodes."""
    numa_policy: str = ""
    cpus: str = ""
    """CPUAffinity=: numbers and ranges of processors."""
    env: dict[str, str] = {}
    """Variables for the worker and its ranks."""
    paths: tuple[str, ...] = ()
    """Folders under /home, /mnt or elsewhere that the worker reads and writes."""
    exec: str = ""
    """A command instead of the worker, such as a torchrun line."""
    workdir: str = ""
    mail_to: str = ""
    """Where mails about failures go; none are sent when empty."""


def asked_settings(kind: Kind = WORKER) -> dict[str, str]:
    """Field to variable of all settings that can be asked for."""
    every = variables(kind.settings)
    return {field: name for field, name in every.items() if field not in kind.decided}


def merged(before: Request, given: Mapping[str, Any]) -> Request:
    """The request that results from what was asked before and what is asked now.

    Args:
        before: what the machine was installed with; `Request()` for nothing.
        given: fields of `Request` and their new values; None means not given. In `settings` and
            `env` an empty value takes a name away; in `paths` an empty path takes all away.
    """
    fields = msgspec.structs.asdict(before)
    for name, value in given.items():
        if value is None:
            continue
        if name in ("settings", "env"):
            both = {**fields[name], **value}
            fields[name] = {key: text for key, text in both.items() if text != ""}
        elif name == "paths":
            new = tuple(path for path in value if path)
            kept = fields[name] if len(new) == len(value) else ()
            fields[name] = tuple(dict.fromkeys((*kept, *new)))
        else:
            fields[name] = value
    return Request(**fields)


def check(request: Request, kind: Kind = WORKER) -> None:
    """Refuses values that systemd or the service would refuse later.

    Raises:
        UserError: names the option, the value and what it may be.
    """
    kind.check(request.settings)
    for field, (option, is_right, meaning) in _RULES.items():
        value = getattr(request, field)
        if value and not is_right(value):
            raise UserError(f"{option} is {value!r}", hint=f"it is {meaning}")
    for name in request.env:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UserError(f"--env names {name!r}", hint="give NAME=VALUE")
    for text in (*request.settings.values(), *request.env.values()):
        _one_line(text)
    for path in request.paths:
        _whole_path("--path", path)
    for option, line in (("--exec", request.exec), ("--workdir", request.workdir)):
        _one_line(line, option)
        if line.endswith("\\"):
            raise UserError(f"{option} ends with a backslash, which joins lines in a unit: {line}")
    if request.workdir:
        _whole_path("--workdir", request.workdir)
    if request.numa_policy in ("bind", "interleave") and not request.numa_node:
        raise UserError(
            f"--numa-policy {request.numa_policy} needs a node", hint="add --numa-node N"
        )


def _matches(pattern: str) -> Callable[[str], bool]:
    return lambda value: re.fullmatch(pattern, value) is not None


def _nice(value: str) -> bool:
    return re.fullmatch(r"-?\d{1,2}", value) is not None and -20 <= int(value) <= 19


def _memory(value: str) -> bool:
    if re.fullmatch(r"[1-9][0-9]?%|100%|infinity", value):
        return True
    found = re.fullmatch(r"([1-9][0-9]{0,17})([KMGT]?)", value)
    return found is not None and int(found[1]) << _SHIFT[found[2]] >= LEAST_MEMORY


def numbers(text: str) -> frozenset[int]:
    """The numbers in a list of numbers and ranges: `0-3,8`.

    Raises:
        ValueError: it is none, or a range ends before it begins.
    """
    found: set[int] = set()
    for part in text.split(","):
        if not re.fullmatch(r"[0-9]{1,4}(-[0-9]{1,4})?", part):
            raise ValueError(f"{part!r} is neither a number nor a range")
        first, _, last = part.partition("-")
        if int(last or first) < int(first):
            raise ValueError(f"{part} ends before it begins")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _numbers(value: str) -> bool:
    try:
        return bool(numbers(value))
    except ValueError:
        return False


_SHIFT = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_ACCOUNT = r"[a-z_][a-z0-9_-]{0,30}\$?"
_RULES: dict[str, tuple[str, Callable[[str], bool], str]] = {
    "user": ("--user", _matches(_ACCOUNT), "the name of an account on this machine"),
    "group": ("--group", _matches(_ACCOUNT), "the name of a group on this machine"),
    "memory": (
        "--memory",
        _memory,
        "bytes with K, M, G or T (8G; 64M are the least), a share of the machine's (80%), or "
        "infinity",
    ),
    "cpu": ("--cpu", _matches(r"[1-9]\d*%"), "a percentage of one core: 150% is one and a half"),
    "nice": ("--nice", _nice, "a number from -20 (first) to 19 (last)"),
    "cpu_policy": ("--cpu-policy", CPU_POLICIES.__contains__, "one of " + ", ".join(CPU_POLICIES)),
    "numa_node": ("--numa-node", _numbers, "numbers and ranges of nodes: 0 or 0-1"),
    "numa_policy": (
        "--numa-policy",
        NUMA_POLICIES.__contains__,
        "one of " + ", ".join(NUMA_POLICIES),
    ),
    "cpus": ("--cpus", _numbers, "numbers and ranges of processors: 0-7,16"),
    "mail_to": ("--mail-to", _matches(r"[^@\s<>,]+@[^@\s<>,]+|[a-z_][a-z0-9_-]*"), "an address"),
}


def _one_line(text: str, option: str = "a value") -> None:
    if any(character < " " or character == "\x7f" for character in text):
        raise UserError(f"{option} holds a line break or control character: {text!r}")


def _whole_path(option: str, path: str) -> None:
    _one_line(path, option)
    parts = PurePosixPath(path)
    if not parts.is_absolute() or ".." in parts.parts or path == "/":
        raise UserError(
            f"{option} is {path!r}", hint="give a folder's whole path, such as /mnt/data"
        )
