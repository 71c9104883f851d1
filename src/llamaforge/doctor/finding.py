"""What a check has to say: how bad, about what, what was seen, and the commands that mend it."""

from __future__ import annotations

import enum
from collections.abc import Iterable

import msgspec


class Severity(enum.Enum):
    """How bad a finding is, from harmless to broken."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing is wrong now."""
    WARNING = "warning"
    """Works, but slower, or not after a reboot, or not for everybody."""
    ERROR = "error"
    """The worker can't do its job."""

    @property
    def weight(self) -> int:
        """Larger is worse."""
        return list(Severity).index(self)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was found."""

    code: str = ""
    """Of the check, such as `LF101`; `examine` fills it in."""
    title: str = ""
    """Of the check."""
    severity: Severity
    about: str = ""
    """The path, host, port or unit that it is about."""
    seen: str
    """What was seen, in one or two sentences."""
    fix: tuple[str, ...] = ()
    """Commands for a shell, in order. What needs root begins with `sudo`."""


def error(about: str, seen: str, *fix: str) -> Finding:
    """A finding that keeps the worker from its job."""
    return Finding(severity=Severity.ERROR, about=about, seen=seen, fix=fix)


def warning(about: str, seen: str, *fix: str) -> Finding:
    """A finding that costs something, or will."""
    return Finding(severity=Severity.WARNING, about=about, seen=seen, fix=fix)


def note(about: str, seen: str, *fix: str) -> Finding:
    """A finding that is only worth knowing."""
    return Finding(severity=Severity.NOTE, about=about, seen=seen, fix=fix)


def worst(findings: Iterable[Finding]) -> Severity:
    """The worst severity of all; OK where there is none."""
    return max((f.severity for f in findings), key=lambda s: s.weight, default=Severity.OK)


EXIT_CODES = {Severity.OK: 0, Severity.NOTE: 0, Severity.WARNING: 1, Severity.ERROR: 3}
"""What `llamaforge doctor` exits with; 2 stays with wrong command lines, as everywhere."""
