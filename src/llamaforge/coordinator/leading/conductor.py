"""Leads one job from generation to generation until one of them ends it.

    ask for nodes ─► preflight ─► generation ─► settle ─► decide ─► the job's end
          ▲                                                 │
          └────────────── the newest checkpoint ◄───────────┘

A change of membership is a generation change: the ranks save a checkpoint or are ended, and the
next generation goes on from the newest checkpoint that verifies, with the nodes that it is given
then. What is needed to go on after the coordinator's own death is written down before anybody is
told (`coordinator.leading.memory`, `coordinator.leading.inputs`).
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable, Mapping, Sequence

from llamaforge.bundle.store import BlobStore
from llamaforge.coordinator.alarm import Alarm
from llamaforge.coordinator.leading import resumption
from llamaforge.coordinator.leading.continuing import Decision, decide
from llamaforge.coordinator.leading.generation import Generation
from llamaforge.coordinator.leading.history import History
from llamaforge.coordinator.leading.inputs import Input, NodeLeaves, NodeLost, StopWish
from llamaforge.coordinator.leading.inspection import Inspection
from llamaforge.coordinator.leading.memory import Memory, Running
from llamaforge.coordinator.leading.outcome import RESUME_HINT, Outcome
from llamaforge.coordinator.leading.seating import AGAIN_SECONDS, Seating
from llamaforge.coordinator.leading.term import OfTerm, Term
from llamaforge.coordinator.leading.versions import differences
from llamaforge.coordinator.node import Node
from llamaforge.coordinator.nodes import Nodes
from llamaforge.coordinator.placement import seat as number_ranks
from llamaforge.coordinator.record import JobRecord
from llamaforge.coordinator.scheduler import Waiting
from llamaforge.errors import LlamaForgeError
from llamaforge.spec.job import Job
from llamaforge.spec.script import ScriptJob
from llamaforge.spec.states import JobState
from llamaforge.wire.messages import Leaving, Peer, PreflightReport

OfJob = OfTerm | PreflightReport


class Conductor:
    """Runs one job.

    Args:
        record: the job.
        nodes: the fleet.
        store: the coordinator's blobs.
        ask: told that the job wants nodes; they are given with `seat`.
        stop_seconds: how long ranks may take to save a checkpoint and leave.
        return_grace: how long a job waits for a node that left or was lost.
    """

    def __init__(
        self,
        record: JobRecord,
        nodes: Nodes,
        store: BlobStore,
        *,
        ask: Callable[[], None],
        stop_seconds: float,
        return_grace: float,
    ) -> None:
        self.record = record
        self.alarm = Alarm()
        self._nodes, self._store, self._stop_seconds = nodes, store, stop_seconds
        memory = record.memory or Memory(start=resumption.as_submitted(record.submission))
        self._start, self._failures = memory.start, memory.failures
        self._history = History(memory.history, memory.versions)
        self._number, self._restarts = memory.number, memory.restarts
        self._running = memory.running
        self._awake = False
        """Whether `run` has begun."""
        self._seating = Seating(record, nodes, self._history, ask=ask, return_grace=return_grace)
        self._inspection = Inspection(record, nodes)
        self._term: Term | None = None
        """The generation that runs now."""

    @property
    def generation(self) -> Generation | None:
        """The generation that runs now."""
        return self._term.generation if self._term else None

    @property
    def number(self) -> int | None:
        """The running generation's number; of one that is about to be taken up again, too."""
        if self._term is not None:
            return self._term.generation.number
        return self._running.number if self._running and not self._awake else None

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
            return Outcome(state=JobState.FAILED, reason=self.record.unwritable(why))

    async def _run(self) -> Outcome:
        """Raises LlamaForgeError where the job can't go on, OSError where its folder refuses."""
        self._awake = True
        if self._number == 0:
            saved = await asyncio.to_thread(resumption.last_generation, self._start, self._store)
            self._number = max(saved, self.record.last_generation())
        while True:
            if self._running is None:
                seats = await self._seating.taken()
                if self.record.stop_reason:
                    self._seating.free(seats)
                    return self._stopped_between()
                if not await self._inspected(seats):
                    continue
            decision = self._decided(await self._generation())
            if decision.outcome.state is not None:
                return self._history.proven(decision.outcome)
            await self._go_back(decision)

    # ── what happens ──────────────────────────────────────────────────────────────────────────

    def stop(self, reason: str, *, now: bool) -> None:
        """Ends the job: after a checkpoint, or at once with `now` or when asked again."""
        self._hear(StopWish(reason=reason, now=now))
        self._seating.give_up()
        self.alarm.ring()

    def abandon(self, reason: str) -> None:
        """Ends the ranks: the coordinator can't lead them any more."""
        if self.generation is not None:
            self.generation.folder_failed(reason)

    def heard(self, node: Node, message: OfJob) -> None:
        """A worker said something about this job."""
        if isinstance(message, PreflightReport):
            self._inspection.take(node, message)
        elif self._term is not None:
            self._term.tell(node, message)
        self.alarm.ring()

    def leaving(self, node: Node, message: Leaving) -> None:
        """A worker was told to end."""
        self.drain(node, message.reason)

    def drain(self, node: Node, why: str) -> None:
        """A node should be left at the next checkpoint."""
        self._hear(NodeLeaves(node=node.name, why=why))

    def lost(self, node: Node) -> None:
        """A node is gone for good."""
        self._inspection.lost(node)
        self._hear(NodeLost(node=node.name, why=node.gone))

    def spares(self, node: Node) -> bool:
        """Whether a node without a connection shows by the job's steps that it goes on."""
        return self._term is not None and self._term.spares(node)

    def _hear(self, told: Input) -> None:
        if self._term is not None:
            self._term.hear(told)

    # ── between generations ───────────────────────────────────────────────────────────────────

    def waiting(self, now: float) -> tuple[Waiting, float | None] | None:
        """What the job wants from the fleet, and when that changes; None: it wants nothing now."""
        return self._seating.waiting(now, self._failures.avoid)

    def seat(self, nodes: Sequence[str]) -> None:
        """The fleet gives nodes."""
        self._seating.give(nodes)

    def still_waits(self, reason: str) -> None:
        """The fleet gives nothing yet, and says why."""
        said = filter(None, (reason, self._seating.refusals(), self._where()))
        self.record.enter(JobState.QUEUED, "; ".join(said))

    def _where(self) -> str:
        """Where a job goes on that had begun already."""
        begun = self._history.members and isinstance(self.record.work, Job)
        return f"goes on at step {self._start.step + 1}" if begun else ""

    async def _inspected(self, seats: tuple[str, ...]) -> bool:
        """Whether the nodes may take part; those that do make the next generation.

        Raises:
            LlamaForgeError: none of them can.
        """
        number = self._number + 1
        self.record.enter(JobState.STARTING, "nodes look at themselves and at their links")
        verdict = await self._inspection.run(number, seats, self._start.manifest, self.alarm)
        wishes = self.record.submission.wishes
        for name, (why, hint) in verdict.refused.items():
            self._seating.refuse(name, f"{why} ({hint})")
        left = [name for name in verdict.chosen if (n := self._nodes.get(name)) and not n.away]
        if self.record.stop_reason or len(left) < wishes.min_nodes or not left:
            self._seating.free(seats)
            if not self.record.stop_reason:
                if not self._seating.others_are_left():
                    self._inspection.raise_if_hopeless(verdict)
                await self._enter_waiting(verdict.refused)
            return False
        self._seating.free([name for name in seats if name not in left])
        nodes = [node for name in left if (node := self._nodes.get(name)) is not None]
        members = number_ranks(wishes, [node.candidate() for node in nodes])
        by_name = {node.name: node.hello for node in nodes}
        peers = tuple(
            Peer(node=m.node, address=by_name[m.node].address, port=by_name[m.node].peer_port)
            for m in members
        )
        self._number = number
        self._running = Running(
            number=number, members=members, peers=peers, restarts=self._restarts
        )
        return True

    async def _enter_waiting(self, refused: Mapping[str, tuple[str, str]]) -> None:
        """Back into the queue, for a full disk as a pause."""
        said = "; ".join(f"{name} can't take part: {why}" for name, (why, _) in refused.items())
        full = refused and all("room" in why for why, _ in refused.values())
        self.record.enter(JobState.PAUSED if full else JobState.QUEUED, said)
        if full:
            await self._rest(AGAIN_SECONDS)
        if self.record.state is JobState.PAUSED:
            self.record.enter(JobState.QUEUED, said)

    def _stopped_between(self) -> Outcome:
        record = self.record
        if not self._history.members:
            return Outcome(state=JobState.STOPPED, reason=f"{record.stop_reason}; had not started")
        saved = self._start.resumed
        kept = f"its newest checkpoint is of step {self._start.step}" if saved else "none is saved"
        reason = f"{record.stop_reason}; {kept}"
        return Outcome(state=JobState.STOPPED, reason=reason, hint=RESUME_HINT if saved else "")

    def _decided(self, outcome: Outcome) -> Decision:
        record, work = self.record, self.record.work
        decision = decide(
            self._failures,
            outcome,
            step=record.step,
            stop_reason=record.stop_reason,
            policy=record.submission.wishes.on_node_loss,
            max_restarts=work.max_restarts if isinstance(work, ScriptJob) else None,
        )
        self._failures = decision.failures
        self._history.ended(outcome.reason, step=record.step)
        return decision

    async def _go_back(self, decision: Decision) -> None:
        """Makes the newest checkpoint the next generation's start.

        Raises:
            LlamaForgeError: it can't be used.
        """
        record, outcome = self.record, decision.outcome
        self._start = await asyncio.to_thread(
            resumption.newest, record.submission, record.checkpoint_dir, self._store
        )
        if outcome.setback is not None and outcome.failure is not None:
            self._restarts += 1
        state = JobState.PAUSED if outcome.full_disk else JobState.QUEUED
        what = outcome.reason.splitlines()[0]
        record.enter(state, "; ".join(text for text in (what, self._where()) if text))
        while True:
            try:
                for note in self._start.notes:
                    record.note("damaged_checkpoint", note)
                record.goes_on(self._history.number, outcome.reason, start=self._start)
                break
            except OSError as why:
                if why.errno != errno.ENOSPC or record.stop_reason:
                    raise
                record.enter(JobState.PAUSED, record.unwritable(why))
                await self._rest(AGAIN_SECONDS)
        self._running = None
        self._remember()
        record.nodes, record.generation = (), 0
        await self._rest(decision.pause)

    async def _rest(self, seconds: float) -> None:
        """Waits, unless the job is to stop."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.record.stop_reason:
            await self.alarm.wait(until)

    def _remember(self) -> None:
        self.record.remember(
            Memory(
                start=self._start,
                failures=self._failures,
                history=self._history.entries,
                versions=self._history.versions,
                number=self._number,
                restarts=self._restarts,
                running=self._running,
            )
        )

    # ── one generation ────────────────────────────────────────────────────────────────────────

    async def _generation(self) -> Outcome:
        """One membership, new or taken up again, to its end. Raises FleetError."""
        running = self._running
        assert running is not None
        self._term = Term(
            self.record,
            self._nodes,
            running,
            self._start,
            alarm=self.alarm,
            stop_seconds=self._stop_seconds,
            returned=self._returned,
        )
        again = running.number == self._history.number
        try:
            return await self._term.run(None if again else self._announce)
        finally:
            self._term = None

    def _returned(self, members: frozenset[str]) -> list[str]:
        """Nodes that this job had, has lost, and could have again."""
        if (self.record.submission.wishes.max_nodes or len(members) + 1) <= len(members):
            return []
        had = set(self._history.versions) - members - self._failures.avoid
        return [node.name for node in self._nodes.all() if node.name in had and node.ready]

    def _announce(self, generation: Generation) -> None:
        """Marks the members as busy and tells followers who they are."""
        versions: dict[str, Mapping[str, str]] = {}
        for member in generation.members:
            node = self._nodes.get(member.node)
            if node is None or node.gone:
                self._hear(NodeLost(node=member.node, why=node.gone if node else "removed"))
                continue
            self._nodes.give(node, self.record.id, member.count)
            versions[node.name] = node.hello.versions
        odd = differences(versions, self._history.versions)
        self._history.began(generation.number, generation.members, versions, self._start.step)
        self._remember()
        self.record.generation_begins(generation, after=self._start.step)
        for warning in self._inspection.warnings:
            self.record.note("preflight", warning)
        if odd:
            self.record.note(
                "versions",
                f"{'; '.join(odd)}: a canary slice tells whether the numbers stay the same",
                nodes=versions,
            )
