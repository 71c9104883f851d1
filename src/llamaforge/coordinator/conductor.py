"""Leads one job from generation to generation until one of them ends it.

    wait for nodes ─► generation ─► settle ─► decide ─► the job's end
          ▲                                     │
          └──── the newest checkpoint ◄─────────┘

A change of membership is a generation change: the ranks save a checkpoint or are ended, and the
next generation goes on from the newest checkpoint that verifies, with the nodes that wait then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from llamaforge.bundle.store import BlobStore
from llamaforge.coordinator import resumption
from llamaforge.coordinator.alarm import Alarm
from llamaforge.coordinator.continuing import Failures, decide
from llamaforge.coordinator.generation import Generation, Phase
from llamaforge.coordinator.history import History
from llamaforge.coordinator.nodes import Node, Nodes
from llamaforge.coordinator.outcome import RESUME_HINT, Outcome
from llamaforge.coordinator.placement import place
from llamaforge.coordinator.record import JobRecord
from llamaforge.coordinator.versions import differences
from llamaforge.errors import LlamaForgeError
from llamaforge.spec.states import JobState, NodeState
from llamaforge.wire.messages import (
    CannotStart,
    Leaving,
    RankExited,
    RankLog,
    RankSaid,
    Uploaded,
)

SETTLE_SECONDS = 15.0
"""How long a job's end waits until its workers have cleaned up and wait again."""
UPLOAD_SECONDS = 600.0
"""How long the next generation waits for a checkpoint that a worker is still sending."""

_STATES = {
    Phase.STARTING: JobState.STARTING,
    Phase.RUNNING: JobState.RUNNING,
    Phase.STOPPING: JobState.RUNNING,
    Phase.FINISHING: JobState.FINISHING,
}
"""While ranks are being ended, a job stays in the state that it was in."""

OfJob = RankSaid | RankExited | RankLog | CannotStart | Uploaded
"""What a worker says about a job."""


class Conductor:
    """One job's way through its generations.

    Args:
        record: the job.
        nodes: the fleet.
        store: the coordinator's blobs.
        alarm: rung when something has changed.
        stop_seconds: how long ranks may take to save a checkpoint and leave.
        return_grace: how long a job waits for a node that left or was lost.
    """

    def __init__(
        self,
        record: JobRecord,
        nodes: Nodes,
        store: BlobStore,
        *,
        alarm: Alarm,
        stop_seconds: float,
        return_grace: float,
    ) -> None:
        self.record = record
        self.generation: Generation | None = None
        """The generation that runs now."""
        self._nodes, self._store, self._alarm = nodes, store, alarm
        self._stop_seconds, self._return_grace = stop_seconds, return_grace
        self._start = resumption.as_submitted(record.submission)
        self._failures = Failures()
        self._history = History()

    @property
    def number(self) -> int | None:
        """The running generation's number."""
        return self.generation.number if self.generation else None

    @property
    def began(self) -> bool:
        """Whether there has been a generation."""
        return bool(self._history.number)

    async def run(self) -> Outcome:
        """Runs the job. Returns how it ended, told when its workers wait again."""
        try:
            return await self._run()
        except LlamaForgeError as why:
            return Outcome(state=JobState.FAILED, reason=why.message, hint=why.hint)
        except OSError as why:
            return Outcome(state=JobState.FAILED, reason=self._refused(why))

    async def _run(self) -> Outcome:
        """Raises LlamaForgeError where the job can't go on, OSError where its folder refuses."""
        number = await asyncio.to_thread(resumption.last_generation, self._start, self._store)
        while True:
            await self._wait_for_nodes()
            if self.record.stop_reason:
                return self._stopped_between()
            number += 1
            outcome = self._decided(await self._generation(number))
            if outcome.state is not None:
                return self._history.proven(outcome)
            await self._go_back(outcome)

    # ── what happens ──────────────────────────────────────────────────────────────────────────

    def stop(self, reason: str, *, now: bool) -> None:
        """Ends the job: after a checkpoint, or at once with `now` or when asked again."""
        if self.generation is not None:
            end = self.generation.end_now if now else self.generation.stop
            end(reason)

    def abandon(self, reason: str) -> None:
        """Ends the ranks: the coordinator can't lead them any more."""
        if self.generation is not None:
            self.generation.folder_failed(reason)

    def heard(self, node: Node, message: OfJob) -> None:
        """A worker said something about this job."""
        if self.generation is not None:
            with self._keeping(self.generation):
                self._tell(self.generation, node, message)

    def leaving(self, node: Node, message: Leaving) -> None:
        """A worker was told to end."""
        if self.generation is not None:
            self.generation.leave(node.name, message.reason)

    def lost(self, node: Node) -> None:
        """A node is gone for good."""
        if self.generation is not None:
            self.generation.lost(node.name, node.reason)

    def _tell(self, generation: Generation, node: Node, message: OfJob) -> None:
        """Keeps what a message says and lets the generation act on it."""
        record = self.record
        if isinstance(message, RankLog):
            record.log_line(node.name, message)
        elif message.generation not in (None, generation.number):
            return
        elif isinstance(message, Uploaded):
            if message.what == "checkpoint" and message.error:
                record.note("checkpoint_not_kept", f"{message.name}: {message.error}")
            generation.uploaded(node.name, message)
        elif isinstance(message, RankSaid):
            record.report(message.rank, message.report)
            generation.said(message.rank, message.report)
        elif isinstance(message, RankExited):
            generation.exited(message)
        else:
            generation.cannot_start(node.name, message)

    # ── between generations ───────────────────────────────────────────────────────────────────

    async def _wait_for_nodes(self) -> None:
        """Until nodes wait for a job and those that just left had time to return, or a stop."""
        until: float | None = None
        while not self.record.stop_reason:
            ready = self._nodes.ready()
            missing = self._missing() if len(ready) < self._history.members else []
            if ready and until is None:
                until = time.monotonic() + self._return_grace
            if ready and (not missing or time.monotonic() >= (until or 0)):
                return
            whom = f"{', '.join(missing)} to come back" if ready else "a worker"
            self.record.enter(JobState.QUEUED, f"waits for {whom}{self._where()}")
            await self._alarm.wait(until if ready else None)

    def _missing(self) -> list[str]:
        """The last generation's nodes that may come back any moment."""
        last = self._history.nodes
        return [node.name for node in self._nodes.all() if node.name in last and node.away]

    def _where(self) -> str:
        """Where a job goes on that had begun already."""
        return f"; goes on at step {self._start.step + 1}" if self._history.members else ""

    def _stopped_between(self) -> Outcome:
        record = self.record
        if not self._history.members:
            return Outcome(state=JobState.STOPPED, reason=f"{record.stop_reason}; had not started")
        saved = self._start.resumed
        kept = f"its newest checkpoint is of step {self._start.step}" if saved else "none is saved"
        reason = f"{record.stop_reason}; {kept}"
        return Outcome(state=JobState.STOPPED, reason=reason, hint=RESUME_HINT if saved else "")

    def _decided(self, outcome: Outcome) -> Outcome:
        record = self.record
        decision = decide(
            self._failures,
            outcome,
            step=record.step,
            stop_reason=record.stop_reason,
            policy=record.submission.job.spec.on_node_loss,
        )
        outcome, self._failures = decision.outcome, decision.failures
        self._history.ended(outcome.reason, step=record.step)
        return outcome

    async def _go_back(self, outcome: Outcome) -> None:
        """Makes the newest checkpoint the next generation's start.

        Raises:
            LlamaForgeError: it can't be used.
        """
        record = self.record
        newest = resumption.newest
        self._start = await asyncio.to_thread(newest, record.submission, self._store)
        for note in self._start.notes:
            record.note("damaged_checkpoint", note)
        record.goes_on(self._history.number, outcome.reason, start=self._start)

    # ── one generation ────────────────────────────────────────────────────────────────────────

    async def _generation(self, number: int) -> Outcome:
        """One membership from StartRanks to the last exit. Raises FleetError."""
        job, ready = self.record.submission.job, self._nodes.ready()
        members = place(job, [node.candidate() for node in ready])
        generation = self.generation = Generation(
            job,
            number,
            self._start.manifest,
            members,
            send=self._nodes.send,
            clock=time.monotonic,
            stop_seconds=self._stop_seconds,
        )
        generation.start()
        with self._keeping(generation):
            self._announce(generation, {node.name: node.hello.versions for node in ready})
        while not generation.over:
            with self._keeping(generation):
                state = _STATES.get(generation.phase, self.record.state)
                self.record.enter(state, generation.reason)
            await self._alarm.wait(generation.deadline)
            generation.tick()
        outcome = generation.outcome()
        await self._settle(generation, UPLOAD_SECONDS if outcome.setback else SETTLE_SECONDS)
        self.generation = None
        return outcome

    def _announce(self, generation: Generation, versions: Mapping[str, Mapping[str, str]]) -> None:
        """Marks the members as busy and tells followers who they are."""
        members = {member.node: member for member in generation.members}
        for node in self._nodes.all():
            if node.name in members:
                count = members[node.name].count
                node.enter(NodeState.BUSY, f"job {self.record.id}", count)
        versions = {name: versions[name] for name in members}
        odd = differences(versions, self._history.versions)
        self._history.began(generation.number, generation.members, versions, self._start.step)
        self.record.generation_begins(generation, after=self._start.step)
        if odd:
            self.record.note(
                "versions",
                f"{'; '.join(odd)}: a canary slice tells whether the numbers stay the same",
                nodes=versions,
            )

    async def _settle(self, generation: Generation, seconds: float) -> None:
        """Waits, not for ever, until the members have sent what they hold and wait again.

        Nodes that are lost or have left are not waited for, nor those whose ranks did not end.
        """
        members = {member.node for member in generation.members} - generation.lingering
        began = time.monotonic()
        while any(
            node.state is NodeState.BUSY and node.ranks
            for node in self._nodes.all()
            if node.name in members
        ):
            until = began + (SETTLE_SECONDS if self.record.stop_reason else seconds)
            if time.monotonic() >= until:
                return
            await self._alarm.wait(until)

    @contextmanager
    def _keeping(self, generation: Generation) -> Iterator[None]:
        """A full disk under the job's folder, or under its stream, ends the job alone."""
        try:
            yield
        except OSError as why:
            generation.folder_failed(self._refused(why))

    def _refused(self, why: OSError) -> str:
        where = why.filename or self.record.folder.path
        return f"{where} can't be written: {why.strerror or why}"
