"""Directives that need a newer systemd than the unit itself, each set in a drop-in of its own.

Sources: systemd.directives(7) and systemd's NEWS, which say when each one came.
"""

from __future__ import annotations

import re

OLDEST = 249
"""The systemd of Ubuntu 22.04; the packaged unit uses nothing newer."""
GATED = {253: "10-systemd-253.conf", 254: "10-systemd-254.conf"}
"""Drop-in by the first version that understands it."""


def open_gates(version: int) -> tuple[str, ...]:
    """The drop-ins that a systemd understands."""
    return tuple(name for least, name in sorted(GATED.items()) if version >= least)


def version_in(said: str) -> int | None:
    """The number in what `systemctl --version` says: "systemd 252 (252.39-1~deb12u1)"."""
    found = re.match(r"systemd (\d+)", said)
    return int(found[1]) if found else None
