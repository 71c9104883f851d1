"""Leads one job from generation to generation until one of them ends it.

    ask for nodes ─► preflight ─► generation ─► settle ─► decide ─► the job's end
          ▲                                                 │
          └────────────── the newest checkpoint ◄───────────┘

A change of membership is a generation change: the ranks save a checkpoint or are ended, and the
next generation goes on from the newest checkpoint that verifies, with the nodes that it is given
then. What is needed to go on after the coordinator's own death is written down before anybody is
told (`coordinator.memory`, `coordinator.inputs`).
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from llamaforge.bundle.store import BlobStore
from llamaforge.coordinator import resumption
from llamaforge.coordinator.alarm import Alarm
from llamaforge.coordinator.continuing import Decision, decide
from llamaforge.coordinator.generation import Generation, Phase
from llamaforge.coordinator.history import History
from llamaforge.coordinator.inputs import (
    FolderFailed,
    Heard,
    Input,
    NodeLeaves,
    NodeLost,
    Regroup,
    ReplayClock,
    StopWish,
    Ticked,
    apply,
    matters,
)
from llamaforge.coordinator.inspection import Inspection
from llamaforge.coordinator.memory import Memory, Running
from llamaforge.coordinator.node import Node
from llamaforge.coordinator.nodes import Nodes
from llamaforge.coordinator.outcome import RESUME_HINT, Outcome
from llamaforge.coordinator.placement import natural
from llamaforge.coordinator.placement import seat as number_ranks
from llamaforge.coordinator.record import JobRecord
from llamaforge.coordinator.scheduler import Waiting
from llamaforge.coordinator.versions import differences
from llamaforge.coordinator.watch import Watch
from llamaforge.errors import LlamaForgeError
from llamaforge.spec.job import Job
from llamaforge.spec.script import ScriptJob
from llamaforge.spec.states import JobState
from llamaforge.wire.messages import (
    Beat,
    CannotStart,
    Leaving,
    Peer,
    PreflightReport,
    RankExited,
    RankLog,
    RankSaid,
    Stacks,
    Uploaded,
)

SETTLE_SECONDS = 15.0
"""How long a job's end waits until its workers have cleaned up and wait again."""
UPLOAD_SECONDS = 600.0
"""How long the next generation waits for a checkpoint that a worker is still sending."""
REGROUP_SECONDS = 20.0
"""A generation is at least so old before it gives way to one with a node that came back."""
AGAIN_SECONDS = 15.0
"""Before nodes that preflight has refused are asked again."""

_STATES = {
    Phase.STARTING: JobState.STARTING,
    Phase.RUNNING: JobState.RUNNING,
    Phase.STOPPING: JobState.RUNNING,
    Phase.FINISHING: JobState.FINISHING,
}
"""While ranks are being ended, a job stays in the state that it was in."""

OfJob = RankSaid | RankExited | RankLog | CannotStart | Uploaded | Beat | PreflightReport | Stacks


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
        self.generation: Generation | None = None
        """The generation that runs now."""
        self.alarm = Alarm()
        self._nodes, self._store, self._ask = nodes, store, ask
        self._stop_seconds, self._return_grace = stop_seconds, return_grace
        memory = record.memory or Memory(start=resumption.as_submitted(record.submission))
        self._start, self._failures = memory.start, memory.failures
        self._history = History(memory.history, memory.versions)
        self._number, self._restarts = memory.number, memory.restarts
        self._running = memory.running
        self._awake = False
        """Whether `run` has begun."""
        self._seats: asyncio.Future[tuple[str, ...]] | None = None
        self._grace_ends: float | None = None
        self._refused: dict[str, tuple[float, str]] = {}
        self._inspection = Inspection(record, nodes)
        self._watch: Watch | None = None

    @property
    def number(self) -> int | None:
        """The running generation's number; of one that is about to be taken up again, too."""
        if self.generation is not None:
            return self.generation.number
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
            return Outcome(state=JobState.FAILED, reason=self._unwritable(why))

    async def _run(self) -> Outcome:
        """Raises LlamaForgeError where the job can't go on, OSError where its folder refuses."""
        self._awake = True
        if self._number == 0:
            saved = await asyncio.to_thread(resumption.last_generation, self._start, self._store)
            self._number = max(saved, self.record.last_generation())
        while True:
            if self._running is None:
                seats = await self._seated()
                if self.record.stop_reason:
                    self._free(seats)
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
        if self.generation is not None:
            self._hear(StopWish(reason=reason, now=now))
        elif self._seats is not None and not self._seats.done():
            self._seats.set_result(())
        self.alarm.ring()

    def abandon(self, reason: str) -> None:
        """Ends the ranks: the coordinator can't lead them any more."""
        if self.generation is not None:
            self.generation.folder_failed(reason)

    def heard(self, node: Node, message: OfJob) -> None:
        """A worker said something about this job."""
        if isinstance(message, PreflightReport):
            self._inspection.take(node, message)
        elif self.generation is not None:
            with self._keeping():
                self._tell(self.generation, node, message)
        self.alarm.ring()

    def leaving(self, node: Node, message: Leaving) -> None:
        """A worker was told to end."""
        self.drain(node, message.reason)

    def drain(self, node: Node, why: str) -> None:
        """A node should be left at the next checkpoint."""
        if self.generation is not None:
            self._hear(NodeLeaves(node=node.name, why=why))

    def lost(self, node: Node) -> None:
        """A node is gone for good."""
        self._inspection.lost(node)
        if self.generation is not None:
            self._hear(NodeLost(node=node.name, why=node.gone))

    def spares(self, node: Node) -> bool:
        """Whether a node without a connection shows by the job's steps that it goes on."""
        return self._watch is not None and self._watch.shows_life(node.name)

    def _hear(self, told: Input) -> None:
        """Writes an input down and lets the generation act on it."""
        generation = self.generation
        assert generation is not None
        if matters(told, generation):
            self.record.took(generation.number, told)
        apply(told, generation)
        self.alarm.ring()

    def _tell(self, generation: Generation, node: Node, message: OfJob) -> None:
        """Keeps what a message says and lets the generation act on it."""
        record = self.record
        if isinstance(message, RankLog):
            record.log_line(node.name, message)
            return
        if isinstance(message, PreflightReport) or message.generation not in (
            None,
            generation.number,
        ):
            return
        if self._watch is not None:
            self._watch.take(node, message)
        if isinstance(message, Beat | Stacks):
            return
        if isinstance(message, RankSaid):
            record.report(message.rank, message.report)
        elif isinstance(message, Uploaded) and message.what == "checkpoint" and message.error:
            record.note("checkpoint_not_kept", f"{message.name}: {message.error}")
        self._hear(Heard(node=node.name, message=message))

    # ── between generations ───────────────────────────────────────────────────────────────────

    def waiting(self, now: float) -> tuple[Waiting, float | None] | None:
        """What the job wants from the fleet, and when that changes; None: it wants nothing now.

        Nodes that left or were lost have a while to come back, from the moment on at which the job
        could go on without them; with the policy `wait`, for ever.
        """
        if self._seats is None or self._seats.done():
            return None
        wishes, history = self.record.submission.wishes, self._history
        must, wakes = self._missing(), None
        ready = sum(node.ready for node in self._nodes.all()) if must else 0
        if wishes.on_node_loss != "wait" and ready >= history.members:
            must = []  # as many as before are there
        if must and wishes.on_node_loss != "wait":
            if self._grace_ends is None and ready:
                self._grace_ends = now + self._return_grace
            if self._grace_ends is not None and now >= self._grace_ends:
                must = []
            else:
                wakes = self._grace_ends
        refused = {name for name, (until, _) in self._refused.items() if now < until}
        times = [until for until, _ in self._refused.values() if now < until]
        wakes = min([*times, *([wakes] if wakes else [])], default=None)
        asks = Waiting(
            id=self.record.id,
            number=self.record.number,
            wishes=wishes,
            must=frozenset(must),
            prefer=history.nodes,
            count=history.members,
            avoid=self._failures.avoid,
            never=frozenset(refused),
        )
        return asks, wakes

    def seat(self, nodes: Sequence[str]) -> None:
        """The fleet gives nodes."""
        assert self._seats is not None
        for name in nodes:
            node = self._nodes.get(name)
            assert node is not None
            self._nodes.give(node, self.record.id)
        self._seats.set_result(tuple(nodes))

    def still_waits(self, reason: str) -> None:
        """The fleet gives nothing yet, and says why."""
        refusals = "; ".join(f"{name} can't take part: {why}" for name, why in self._refusals())
        said = "; ".join(filter(None, (reason, refusals, self._where())))
        with self._keeping():
            self.record.enter(JobState.QUEUED, said)

    def _refusals(self) -> Iterator[tuple[str, str]]:
        now = time.monotonic()
        for name, (until, why) in sorted(self._refused.items()):
            if now < until:
                yield name, why

    async def _seated(self) -> tuple[str, ...]:
        """The nodes that the fleet gives; none when the job is to stop."""
        if self.record.stop_reason:
            return ()
        self._grace_ends = None
        self._seats = asyncio.get_running_loop().create_future()
        self._ask()
        try:
            return await self._seats
        finally:
            self._seats = None

    def _free(self, names: Sequence[str]) -> None:
        for name in names:
            node = self._nodes.get(name)
            if node is not None and node.job == self.record.id and not node.ranks:
                self._nodes.give(node, "")
        self._ask()

    def _missing(self) -> list[str]:
        """The last generation's nodes that may come back any moment."""
        last = [self._nodes.get(name) for name in sorted(self._history.nodes, key=natural)]
        return [node.name for node in last if node is not None and node.away]

    def _where(self) -> str:
        """Where a job goes on that had begun already."""
        return f"goes on at step {self._start.step + 1}" if self._history.members else ""

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
            self._refused[name] = (time.monotonic() + AGAIN_SECONDS, f"{why} ({hint})")
        left = [name for name in verdict.chosen if (n := self._nodes.get(name)) and not n.away]
        if self.record.stop_reason or len(left) < wishes.min_nodes or not left:
            self._free(seats)
            if not self.record.stop_reason:
                if not self._others_are_left():
                    self._inspection.raise_if_hopeless(verdict)
                await self._enter_waiting(verdict.refused)
            return False
        self._free([name for name in seats if name not in left])
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

    def _others_are_left(self) -> bool:
        """Whether a node of the fleet has not been refused: it may take the job alone."""
        return any(not node.away and node.name not in self._refused for node in self._nodes.all())

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
        record.enter(state, f"{outcome.reason.splitlines()[0]}; {self._where()}")
        while True:
            try:
                for note in self._start.notes:
                    record.note("damaged_checkpoint", note)
                record.goes_on(self._history.number, outcome.reason, start=self._start)
                break
            except OSError as why:
                if why.errno != errno.ENOSPC or record.stop_reason:
                    raise
                record.enter(JobState.PAUSED, self._unwritable(why))
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
        """One membership from StartRanks to the last exit. Raises FleetError."""
        running = self._running
        assert running is not None
        again = running.number == self._history.number
        generation = self.generation = Generation(
            self.record.work,
            running.number,
            self._start.manifest,
            running.members,
            send=self._nodes.send,
            clock=ReplayClock(time.monotonic()),
            stop_seconds=self._stop_seconds,
            peers=running.peers,
            restarts=running.restarts,
        )
        self.record.nodes = tuple(member.node for member in running.members)
        self.record.generation = running.number
        generation.start()
        if again:
            for told in self.record.inputs(running.number):
                apply(told, generation)
        else:
            with self._keeping():
                self._announce(generation)
        generation.clock = time.monotonic
        self._watch = Watch(self.record, generation, self._nodes, self._hear)
        await self._until_over(generation, self._watch)
        outcome = generation.outcome()
        await self._settle(generation, UPLOAD_SECONDS if outcome.setback else SETTLE_SECONDS)
        self.generation = self._watch = None
        return outcome

    async def _until_over(self, generation: Generation, watch: Watch) -> None:
        began = time.monotonic()
        while not generation.over:
            with self._keeping():
                state = _STATES.get(generation.phase, self.record.state)
                self.record.enter(state, generation.reason)
            deadlines = (generation.deadline, watch.look(), self._regroup_at(began))
            wakes = min((moment for moment in deadlines if moment is not None), default=None)
            await self.alarm.wait(wakes)
            if generation.deadline is not None and time.monotonic() >= generation.deadline:
                self._hear(Ticked())
            self._take_back(began)

    def _regroup_at(self, began: float) -> float | None:
        """When a node that is back may be taken back; None when there is none."""
        return began + REGROUP_SECONDS if self._returned() else None

    def _returned(self) -> list[str]:
        """Nodes that this job had, has lost, and could have again."""
        generation, wishes = self.generation, self.record.submission.wishes
        if generation is None or generation.phase is not Phase.RUNNING:
            return []
        if not isinstance(self.record.work, Job) or not generation.trains:
            return []
        members = {member.node for member in generation.members}
        room = (wishes.max_nodes or len(members) + 1) > len(members)
        had = set(self._history.versions) - members - self._failures.avoid
        return [n.name for n in self._nodes.all() if room and n.name in had and n.ready]

    def _take_back(self, began: float) -> None:
        back = self._returned()
        if back and time.monotonic() >= began + REGROUP_SECONDS:
            self._hear(Regroup(why=f"{', '.join(back)} came back"))

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

    async def _settle(self, generation: Generation, seconds: float) -> None:
        """Waits, not for ever, until the members have sent what they hold and wait again.

        Nodes that are lost or have left are not waited for, nor those whose ranks did not end.
        """
        members = {member.node for member in generation.members} - generation.lingering
        began = time.monotonic()
        while any(
            node.ranks and not node.gone and not node.leaving and node.job == self.record.id
            for node in self._nodes.all()
            if node.name in members
        ):
            until = began + (SETTLE_SECONDS if self.record.stop_reason else seconds)
            if time.monotonic() >= until:
                return
            await self.alarm.wait(until)

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """A full disk under the job's folder pauses the job, another trouble there ends it."""
        try:
            yield
        except OSError as why:
            if self.generation is None:
                raise
            full = why.errno in (errno.ENOSPC, errno.EDQUOT)
            self._hear(FolderFailed(what=self._unwritable(why), full=full))

    def _unwritable(self, why: OSError) -> str:
        where = why.filename or self.record.path
        return f"{where} can't be written: {why.strerror or why}"
