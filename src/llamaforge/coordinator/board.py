"""The jobs of a coordinator: first in, first out, one at a time over all waiting nodes."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from llamaforge.bundle.store import BlobStore
from llamaforge.coordinator.alarm import Alarm
from llamaforge.coordinator.conductor import Conductor, OfJob
from llamaforge.coordinator.nodes import Node, Nodes
from llamaforge.coordinator.outcome import Outcome
from llamaforge.coordinator.record import JobRecord
from llamaforge.errors import FleetError, UserError
from llamaforge.spec.states import JobState
from llamaforge.wire.api import Submission
from llamaforge.wire.messages import FromWorker, Leaving

REMEMBERED = 50
"""Ended jobs that status still shows."""

_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

log = logging.getLogger("llamaforge.coordinator")


class Board:
    """Runs jobs.

    Args:
        streams: folder for the jobs' streams.
        coordinator: this coordinator's id.
        store: its blobs.
        node_grace: seconds for which a node may be without a connection.
        stop_seconds: how long ranks may take to save a checkpoint and leave.
        return_grace: seconds that a job waits for a node that left or was lost.
    """

    def __init__(
        self,
        streams: Path,
        coordinator: str,
        store: BlobStore,
        *,
        node_grace: float,
        stop_seconds: float,
        return_grace: float,
    ) -> None:
        self._alarm = Alarm()
        self.nodes = Nodes(
            coordinator,
            node_grace,
            heard=self._heard,
            lost=self._node_lost,
            changed=self._alarm.ring,
        )
        self._streams, self._store = streams, store
        self._stop_seconds, self._return_grace = stop_seconds, return_grace
        self._jobs: dict[str, JobRecord] = {}
        self._conductor: Conductor | None = None
        """Leads the job that runs now."""

    def jobs(self) -> list[JobRecord]:
        """All remembered jobs, oldest first."""
        return list(self._jobs.values())

    def job(self, job_id: str) -> JobRecord:
        """One job. Raises FleetError when it is not known."""
        try:
            return self._jobs[job_id]
        except KeyError:
            raise FleetError(
                f"job {job_id!r} is not known to this coordinator (it may have been restarted)",
                hint="a job that was cut off continues with the same command and --auto-resume",
            ) from None

    def generation(self, job_id: str) -> int | None:
        """The number of a job's running generation; None when none runs."""
        conductor = self._conductor
        return conductor.number if conductor and conductor.record.id == job_id else None

    def submit(self, submission: Submission) -> JobRecord:
        """Queues a job.

        Raises:
            UserError: a job of that name is queued or runs, or its folder can't be written.
        """
        job_id = submission.job_id
        self._refuse_clash(submission)
        self._jobs.pop(job_id, None)
        record = self._jobs[job_id] = JobRecord(submission, self._streams)
        for ended in [job for job in self.jobs() if job.state.final][:-REMEMBERED]:
            self._jobs.pop(ended.id).stream.remove()
        log.info("job %s is queued", job_id)
        before = [job for job in self.jobs() if not job.state.final and job is not record]
        if before:
            record.enter(JobState.QUEUED, f"waits behind {before[-1].id}")
        self._alarm.ring()
        return record

    def _refuse_clash(self, submission: Submission) -> None:
        job_id = submission.job_id
        if not _JOB_ID.fullmatch(job_id):
            raise UserError(f"{job_id!r} can't be the name of a job", hint="use --name")
        for folder in (submission.output_dir, submission.checkpoint_dir):
            if not Path(folder).is_absolute():
                raise UserError(f"{folder!r} is not an absolute path")
        for other in self.jobs():
            if other.state.final:
                continue
            if other.id == job_id:
                raise UserError(
                    f"job {job_id!r} is {other.state.value} already", hint="choose another --name"
                )
            for option in ("output_dir", "checkpoint_dir"):
                folder = getattr(submission, option)
                if os.path.realpath(getattr(other.submission, option)) == os.path.realpath(folder):
                    raise UserError(
                        f"job {other.id!r} writes to {folder} already",
                        hint=f"choose another folder with --{option.replace('_', '-')}",
                    )

    def stop(self, job_id: str, reason: str, *, now: bool) -> None:
        """Stops a job: after a checkpoint; at once with `now` or when asked again.

        Raises:
            FleetError: the job is not known or has ended.
        """
        record = self.job(job_id)
        if record.state.final:
            raise FleetError(f"job {job_id!r} has ended already: it is {record.state.value}")
        record.stop_reason = record.stop_reason or reason
        if self._conductor is not None and self._conductor.record is record:
            self._conductor.stop(reason, now=now)
        else:
            reason = f"{record.stop_reason}; had not started"
            record.end(Outcome(state=JobState.STOPPED, reason=reason))
        self._alarm.ring()

    async def run(self) -> None:
        """Runs one queued job after the other, for ever."""
        while True:
            record = next((job for job in self.jobs() if not job.state.final), None)
            if record is None:
                await self._alarm.wait(None)
            else:
                await self._shielded(record)
                self._conductor = None

    async def _shielded(self, record: JobRecord) -> None:
        """One job, whose trouble, even a bug's, must not end the coordinator and the fleet."""
        try:
            await self._conduct(record)
        except Exception as bug:
            log.exception("job %s met a mistake of the coordinator", record.id)
            reason = f"the coordinator made a mistake: {type(bug).__name__}: {bug}"
            if self._conductor is not None:
                self._conductor.abandon(reason)
            hint = "the coordinator's log has the details; please report them"
            record.end(Outcome(state=JobState.FAILED, reason=reason, hint=hint))

    async def _conduct(self, record: JobRecord) -> None:
        """One job to its end."""
        conductor = self._conductor = Conductor(
            record,
            self.nodes,
            self._store,
            alarm=self._alarm,
            stop_seconds=self._stop_seconds,
            return_grace=self._return_grace,
        )
        outcome = await conductor.run()
        if conductor.began:
            await record.draw()
        record.end(outcome)

    # ── what workers say ──────────────────────────────────────────────────────────────────────

    def _heard(self, node: Node, message: FromWorker) -> None:
        """Passes a worker's message to the job that it is about."""
        conductor = self._conductor
        if conductor is None:
            return
        if isinstance(message, Leaving):
            conductor.leaving(node, message)
        elif isinstance(message, OfJob) and message.job_id == conductor.record.id:
            conductor.heard(node, message)

    def _node_lost(self, node: Node) -> None:
        if self._conductor is not None:
            self._conductor.lost(node)
