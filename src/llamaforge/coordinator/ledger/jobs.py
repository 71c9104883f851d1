"""The states of jobs in the ledger, changed only along the table in `spec.states`."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Any

from llamaforge.spec.states import JOB_MOVES, JobState
from llamaforge.wire.api import Event

_INSERT = (
    "INSERT INTO jobs (id, number, key, submission, submitter, state, reason, since, submitted) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class Jobs:
    """Adds jobs and moves them from state to state, each time with an event.

    Args:
        write: queues a statement.
        event: queues an event.
        connection: to see which jobs there are.
    """

    def __init__(
        self,
        write: Callable[..., None],
        event: Callable[..., Event],
        connection: sqlite3.Connection,
    ) -> None:
        self._write, self._event = write, event
        rows = connection.execute("SELECT id, state FROM jobs")
        self._states = {job: JobState(state) for job, state in rows}
        self._number = connection.execute("SELECT coalesce(max(number), 0) FROM jobs").fetchone()[0]

    def state(self, job: str) -> JobState | None:
        """The state of a job as it is or will be in the ledger; None of an unknown one."""
        return self._states.get(job)

    def add(self, job: str, *, key: str, submission: bytes, submitter: str, reason: str) -> int:
        """Adds a queued job.

        Returns:
            Its number: jobs are counted from 1 in the order in which they were submitted.

        Raises:
            ValueError: there is one of this name.
        """
        if job in self._states:
            raise ValueError(f"job {job!r} is in the ledger already")
        self._number += 1
        state, now = JobState.QUEUED, time.time()
        row = (job, self._number, key, submission, submitter, state.value, reason, now, now)
        self._write(_INSERT, *row)
        self._states[job] = state
        self._event("job", job, state.value, reason, by=submitter)
        return int(self._number)

    def move(
        self,
        job: str,
        old: JobState,
        new: JobState,
        reason: str,
        *,
        by: str = "",
        fields: dict[str, Any] | None = None,
    ) -> Event:
        """Writes down that a job goes from one state to another, or on in it with another reason.

        Args:
            job: which one.
            old: the state that the caller believes it is in.
            new: the state that it enters.
            reason: for people.
            by: who caused it, where somebody did.
            fields: more about the event.

        Raises:
            ValueError: the job is unknown, is not in `old`, or can't go from there to `new`.
        """
        present = self._states.get(job)
        if present is not old:
            is_ = f"is {present.value}" if present else "is unknown"
            raise ValueError(f"job {job!r} {is_} and can't leave {old.value}")
        if new is not old and new not in JOB_MOVES[old]:
            raise ValueError(f"job {job!r} can't go from {old.value} to {new.value}")
        now = time.time()
        self._states[job] = new
        if new is old:
            self._write("UPDATE jobs SET reason = ? WHERE id = ?", reason, job)
        else:
            self._write(
                "UPDATE jobs SET state = ?, reason = ?, since = ? WHERE id = ?",
                *(new.value, reason, now, job),
            )
        return self._event("job", job, new.value, reason, by=by, **(fields or {}))

    def remove(self, job: str) -> None:
        """Takes a job and what was noted for it out of the ledger; its events stay.

        Raises:
            ValueError: it is not in a final state.
        """
        state = self._states.get(job)
        if state is None or not state.final:
            raise ValueError(f"job {job!r} is {state.value if state else 'unknown'}, not ended")
        del self._states[job]
        self._write("DELETE FROM inputs WHERE job = ?", job)
        self._write("DELETE FROM jobs WHERE id = ?", job)
