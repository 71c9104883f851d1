"""The jobs of a coordinator: first in, first out, one at a time over all waiting nodes."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llamaforge.coordinator.generation import Generation, Outcome, Phase
from llamaforge.coordinator.nodes import Node, Nodes
from llamaforge.coordinator.placement import place
from llamaforge.coordinator.record import JobRecord
from llamaforge.errors import FleetError, UserError
from llamaforge.spec.states import JobState, NodeState
from llamaforge.wire.api import Submission
from llamaforge.wire.messages import (
    CannotStart,
    FromWorker,
    Leaving,
    RankExited,
    RankLog,
    RankSaid,
    Uploaded,
)
from llamaforge.wire.updates import GenerationStarted

REMEMBERED = 50
"""Ended jobs that status still shows."""
SETTLE_SECONDS = 15.0
"""How long a job's end waits until its workers have cleaned up and wait again."""

_STATES = {
    Phase.STARTING: JobState.STARTING,
    Phase.RUNNING: JobState.RUNNING,
    Phase.STOPPING: JobState.RUNNING,
    Phase.FINISHING: JobState.FINISHING,
}
"""While ranks are being ended, a job stays in the state that it was in."""

_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

log = logging.getLogger("llamaforge.coordinator")


class Board:
    """Runs jobs.

    Args:
        streams: folder for the jobs' streams.
        coordinator: this coordinator's id.
        node_grace: seconds for which a node may be without a connection.
        stop_seconds: how long ranks may take to save a checkpoint and leave.
    """

    def __init__(
        self, streams: Path, coordinator: str, *, node_grace: float, stop_seconds: float
    ) -> None:
        self.nodes = Nodes(
            coordinator,
            node_grace,
            heard=self._heard,
            lost=self._node_lost,
            changed=self._wake_up,
        )
        self._streams, self._stop_seconds = streams, stop_seconds
        self._jobs: dict[str, JobRecord] = {}
        self._current: JobRecord | None = None
        self._wake = asyncio.Event()

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

    def submit(self, submission: Submission) -> JobRecord:
        """Queues a job.

        Raises:
            UserError: a job of that name is queued or runs, or its folder can't be written.
        """
        job_id = submission.job.id
        self._refuse_clash(submission)
        self._jobs.pop(job_id, None)
        record = self._jobs[job_id] = JobRecord(submission, self._streams)
        for ended in [job for job in self.jobs() if job.state.final][:-REMEMBERED]:
            self._jobs.pop(ended.id).stream.remove()
        log.info("job %s is queued", job_id)
        before = [job for job in self.jobs() if not job.state.final and job is not record]
        if before:
            record.enter(JobState.QUEUED, f"waits behind {before[-1].id}")
        self._wake_up()
        return record

    def _refuse_clash(self, submission: Submission) -> None:
        job_id = submission.job.id
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
        if record is not self._current:
            record.end(_stopped_before_start(record))
        elif record.generation is not None:
            end = record.generation.end_now if now else record.generation.stop
            end(reason)
        self._wake_up()

    async def run(self) -> None:
        """Runs one queued job after the other, for ever."""
        while True:
            record = next((job for job in self.jobs() if not job.state.final), None)
            if record is None:
                await self._sleep(None)
            else:
                self._current = record
                await self._shielded(record)
                self._current = None

    async def _shielded(self, record: JobRecord) -> None:
        """One job, whose trouble, even a bug's, must not end the coordinator and the fleet."""
        try:
            await self._conduct(record)
        except Exception as bug:
            log.exception("job %s met a mistake of the coordinator", record.id)
            reason = f"the coordinator made a mistake: {type(bug).__name__}: {bug}"
            if record.generation is not None:
                record.generation.folder_failed(reason)
            hint = "the coordinator's log has the details; please report them"
            record.end(Outcome(state=JobState.FAILED, reason=reason, hint=hint))

    async def _conduct(self, record: JobRecord) -> None:
        """One job: generations until one ends it, then its end, told when workers wait again."""
        number = 0
        outcome: Outcome | None = None
        while outcome is None or outcome.state is None:
            number += 1
            outcome = await self._stopped_or_ready(record)
            if outcome is None:
                outcome = await self._generation(record, number)
        if number:
            await record.draw()
        record.end(outcome)

    async def _stopped_or_ready(self, record: JobRecord) -> Outcome | None:
        """Waits until nodes wait for a job; an outcome when it was stopped before."""
        while not record.stop_reason:
            if self.nodes.ready():
                return None
            record.enter(JobState.QUEUED, "waits for a worker")
            await self._sleep(None)
        return _stopped_before_start(record)

    async def _generation(self, record: JobRecord, number: int) -> Outcome:
        """One membership from StartRanks to the last exit."""
        submission = record.submission
        try:
            members = place(submission.job, [node.candidate() for node in self.nodes.ready()])
        except FleetError as why:
            return Outcome(state=JobState.FAILED, reason=why.message, hint=why.hint)
        generation = Generation(
            submission.job,
            number,
            submission.manifest,
            members,
            send=self.nodes.send,
            clock=time.monotonic,
            stop_seconds=self._stop_seconds,
        )
        record.generation = generation
        generation.start()
        with _keeping(record, generation):
            self._announce(record, generation)
        while not generation.over:
            with _keeping(record, generation):
                record.enter(_STATES.get(generation.phase, record.state), generation.reason)
            await self._sleep(generation.deadline)
            generation.tick()
        await self._settle(generation)
        record.generation = None
        return generation.outcome()

    def _announce(self, record: JobRecord, generation: Generation) -> None:
        """Marks the members as busy and tells followers who they are."""
        for node in self.nodes.all():
            for member in generation.members:
                if member.node == node.name:
                    node.enter(NodeState.BUSY, f"job {record.id}", member.count)
        shape = ", ".join(f"{m.count} on {m.node}" for m in generation.members)
        record.folder.event(
            "generation",
            f"generation {generation.number}: {generation.world_size} ranks ({shape})",
            generation=generation.number,
            world_size=generation.world_size,
            nodes={m.node: m.count for m in generation.members},
        )
        record.stream.add(
            GenerationStarted(
                generation=generation.number,
                world_size=generation.world_size,
                nodes=generation.members,
            )
        )

    async def _settle(self, generation: Generation) -> None:
        """Waits, not for ever, until the members wait for the next job, are lost, or leave."""
        members = {member.node for member in generation.members}
        until = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < until and any(
            node.state is NodeState.BUSY and node.ranks
            for node in self.nodes.all()
            if node.name in members
        ):
            await self._sleep(until)

    def _heard(self, node: Node, message: FromWorker) -> None:
        """Passes a worker's message to the generation it belongs to."""
        if isinstance(message, Leaving):
            self._leave(node, message)
            return
        if not isinstance(message, RankSaid | RankExited | RankLog | CannotStart | Uploaded):
            return
        record = self._jobs.get(message.job_id)
        if record is None or record.generation is None:
            return
        with _keeping(record, record.generation):
            self._tell(record, record.generation, node, message)

    def _tell(
        self,
        record: JobRecord,
        generation: Generation,
        node: Node,
        message: RankSaid | RankExited | RankLog | CannotStart | Uploaded,
    ) -> None:
        """Keeps what a message says and lets the generation act on it."""
        if isinstance(message, RankLog):
            record.log_line(node.name, message)
            return
        if isinstance(message, Uploaded):
            if message.what == "checkpoint" and message.error:
                record.note("checkpoint_not_kept", f"{message.name}: {message.error}")
            generation.uploaded(node.name, message)
        elif message.generation != generation.number:
            return
        elif isinstance(message, RankSaid):
            record.report(message.rank, message.report)
            generation.said(message.rank, message.report)
        elif isinstance(message, RankExited):
            generation.exited(message)
        else:
            generation.cannot_start(node.name, message)

    def _leave(self, node: Node, message: Leaving) -> None:
        """A worker that is told to end takes its job with it, after a checkpoint."""
        for record in self.jobs():
            generation = record.generation
            if generation is None or generation.phase not in (Phase.STARTING, Phase.RUNNING):
                continue
            if any(member.node == node.name for member in generation.members):
                generation.stop(f"{node.name} is leaving ({message.reason})")

    def _node_lost(self, node: Node) -> None:
        for record in self.jobs():
            if record.generation is not None:
                record.generation.lost(node.name, node.reason)

    def _wake_up(self) -> None:
        self._wake.set()

    async def _sleep(self, until: float | None) -> None:
        """Waits until something has changed, or until a moment of the monotonic clock."""
        try:
            seconds = None if until is None else max(0.0, until - time.monotonic())
            await asyncio.wait_for(self._wake.wait(), seconds)
        except asyncio.TimeoutError:
            return
        self._wake.clear()


@contextmanager
def _keeping(record: JobRecord, generation: Generation) -> Iterator[None]:
    """A full disk under the job's folder, or under its stream, ends the job and nothing else."""
    try:
        yield
    except OSError as why:
        where = why.filename or record.folder.path
        generation.folder_failed(f"{where} can't be written: {why.strerror or why}")


def _stopped_before_start(record: JobRecord) -> Outcome:
    return Outcome(state=JobState.STOPPED, reason=f"{record.stop_reason}; had not started")
