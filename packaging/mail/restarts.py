#!/usr/bin/python3 -I
"""Counts how often the worker's service ends by itself, and starts a mail when that is too often.

systemd never calls a unit with Restart=always failed, so OnFailure= is silent about a worker that
crashes again and again. This is the worker's ExecStopPost (60-mail.conf): a program of its own for
the system's python3 (3.9 or newer), run as root between two starts of the worker, so it is small
and does nothing that can take long. It stands on a machine as
/usr/local/libexec/llamaforge/restarts.

    restarts UNIT     with systemd's SERVICE_RESULT, EXIT_CODE and EXIT_STATUS

Its three limits are in /etc/llamaforge/mail.conf (restarts, minutes, quiet_minutes); what it counts
is in /run/llamaforge-mail, for `mail` to tell.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

SETTINGS = Path("/etc/llamaforge/mail.conf")
ENDS = Path("/run/llamaforge-mail")
"""One file per unit; gone after a reboot."""
FINAL_CODE = "78"
"""EX_CONFIG: after this exit code systemd does not start the worker again, and OnFailure= acts."""
KEPT = 100
PATIENCE = 5
"""Seconds for systemctl, which only queues a job."""
LIMITS = {"restarts": 5, "minutes": 10, "quiet_minutes": 60}


def limits(text: str) -> dict[str, int]:
    """The limits in mail.conf; a line that is wrong counts for nothing here: `mail` names it."""
    found = re.findall(r"^\s*(restarts|minutes|quiet_minutes)\s*=\s*([0-9]{1,6})\s*$", text, re.M)
    return {**LIMITS, **{name: int(number) for name, number in found}}


def counts(result: str, code: str, status: str) -> bool:
    """Whether an end is one that systemd starts the unit again for, and nobody asked for."""
    return result not in ("", "success") and (code, status) != ("exited", FINAL_CODE)


def is_due(ends: list[float], mailed: float | None, now: float, limit: dict[str, int]) -> bool:
    """Whether a mail is due.

    Args:
        ends: when the unit ended; seconds since the machine's start.
        mailed: when the last mail was started, on the same clock; None for never.
        now: the present second.
        limit: see `LIMITS`.
    """
    recent = [second for second in ends if now - second <= limit["minutes"] * 60]
    quiet = mailed is not None and now - mailed < limit["quiet_minutes"] * 60
    return len(recent) > limit["restarts"] and not quiet


def count(unit: str, how: dict[str, str], now: float) -> bool:
    """Adds one end to a unit's file; True when a mail is due."""
    try:
        limit = limits(SETTINGS.read_text(encoding="utf-8", errors="replace"))
    except OSError as why:
        print(f"{SETTINGS}: {why.strerror}", file=sys.stderr)
        limit = LIMITS
    seen = read(unit)
    at = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    ends = [*seen["ends"], {"second": now, "at": at, **how}][-KEPT:]
    due = is_due([end["second"] for end in ends], seen["mailed"], now, limit)
    keep(unit, {"ends": ends, "mailed": now if due else seen["mailed"]})
    return due


def read(unit: str) -> dict:  # type: ignore[type-arg]
    """What was counted; nothing yet where there is no file, or half of one."""
    try:
        seen = json.loads((ENDS / f"{unit}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"ends": [], "mailed": None}
    return {"ends": list(seen["ends"]), "mailed": seen["mailed"]}


def keep(unit: str, seen: dict[str, object]) -> None:
    """Writes a unit's file aside and renames it: `mail` may be reading."""
    ENDS.mkdir(mode=0o755, exist_ok=True)
    aside = ENDS / f".{unit}.json"
    aside.write_text(json.dumps(seen), encoding="utf-8")
    aside.replace(ENDS / f"{unit}.json")


def main(unit: str) -> None:
    """Counts, and starts the mail."""
    variables = {"result": "SERVICE_RESULT", "code": "EXIT_CODE", "status": "EXIT_STATUS"}
    how = {name: os.environ.get(variable, "") for name, variable in variables.items()}
    os.umask(0o022)  # the mail program reads what is kept here as another user
    now = time.clock_gettime(time.CLOCK_BOOTTIME)  # a clock that nobody sets
    if counts(**how) and count(unit, how, now):
        mail = f"llamaforge-mail@{unit}.restarts.service"
        subprocess.run(["systemctl", "start", "--no-block", mail], timeout=PATIENCE, check=False)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
