"""What a coordinator in a lab has written down durably, read while it runs or is dead."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from typing import Any

from lab_fleet import COORDINATOR, STATE

from lab import LabError, Node

QUICK = 0.02
"""Seconds between two looks: the states of a small job are short."""


def rows(head: Node, question: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Rows of the ledger."""
    # SQLite resolves links, and the live tree of a node is one (/proc/PID/root): its disk is not.
    path = head.disk.root / f"{STATE}/ledger.db".lstrip("/")
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as ledger:
        return ledger.execute(question, parameters).fetchall()


def state(head: Node, job: str) -> str:
    """A job's state; "" for none of that name."""
    found = rows(head, "SELECT state FROM jobs WHERE id = ?", job)
    return str(found[0][0]) if found else ""


def states(head: Node, job: str) -> list[str]:
    """Every state that the job has entered, in order."""
    asked = "SELECT what FROM events WHERE kind = 'job' AND subject = ? ORDER BY number"
    return [str(row[0]) for row in rows(head, asked, job)]


def until(head: Node, condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Looks often, so as to be there when it happens; a ledger that is being opened is a no."""
    deadline = time.monotonic() + seconds
    failure: Exception | None = None
    while True:
        try:
            if answer := condition():
                return answer
        except (sqlite3.Error, OSError) as error:
            failure = error
        if time.monotonic() > deadline:
            said = head.run("journalctl", "-u", COORDINATOR, "-n", "30", "-o", "cat", check=False)
            raise LabError(
                f"{head.name}: {what}: not within {seconds:g} s ({failure})\n{said.stdout}"
            )
        time.sleep(QUICK)
