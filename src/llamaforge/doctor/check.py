"""What a check is: a code that never changes, words for people, and a function that looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from llamaforge.doctor.finding import Finding
from llamaforge.doctor.machine import Machine
from llamaforge.doctor.subject import Subject


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that can be wrong, and how to see it."""

    code: str
    """Such as `LF101`; it means the same for ever."""
    title: str
    sees: str
    """What it notices, for docs/DOCTOR.md."""
    fix: str
    """What mends it, for docs/DOCTOR.md."""
    look: Callable[[Machine, Subject], Iterable[Finding]]
    """Looks; yields nothing where all is well."""
    seconds: float = 20.0
    """After which the check itself counts as hung."""
