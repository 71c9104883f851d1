"""One generation in office: ordered, or taken up again, watched, and settled when it is over."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from llamaforge.coordinator.alarm import Alarm
from llamaforge.coordinator.leading.generation import Generation, Phase
from llamaforge.coordinator.leading.inputs import (
    FolderFailed,
    Heard,
    Input,
    Regroup,
    ReplayClock,
    Ticked,
    apply,
    matters,
)
from llamaforge.coordinator.leading.memory import Running
from llamaforge.coordinator.leading.outcome import Outcome
from llamaforge.coordinator.leading.resumption import Start
from llamaforge.coordinator.leading.watch import Watch
from llamaforge.coordinator.node import Node
from llamaforge.coordinator.nodes import Nodes
from llamaforge.coordinator.record import JobRecord
from llamaforge.spec.job import Job
from llamaforge.spec.states import JobState
from llamaforge.wire.messages import (
    Beat,
    CannotStart,
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

_STATES = {
    Phase.STARTING: JobState.STARTING,
    Phase.RUNNING: JobState.RUNNING,
    Phase.STOPPING: JobState.RUNNING,
    Phase.FINISHING: JobState.FINISHING,
}
"""While ranks are being ended, a job stays in the state that it was in."""

OfTerm = RankSaid | RankExited | RankLog | CannotStart | Uploaded | Beat | Stacks


class Term:
    """The running generation of one job.

    Args:
        record: the job.
        nodes: the fleet.
        running: what was, or is to be, ordered.
        start: from where it goes on.
        alarm: rung when something has changed.
        stop_seconds: how long ranks may take to save a checkpoint and leave.
        returned: nodes that it could have back, given those that it has.
    """

    def __init__(
        self,
        record: JobRecord,
        nodes: Nodes,
        running: Running,
        start: Start,
        *,
        alarm: Alarm,
        stop_seconds: float,
        returned: Callable[[frozenset[str]], Sequence[str]],
    ) -> None:
        self._record, self._nodes, self._alarm = record, nodes, alarm
        self._returned = returned
        self.generation = Generation(
            record.work,
            running.number,
            start.manifest,
            running.members,
            send=nodes.send,
            clock=ReplayClock(time.monotonic()),
            stop_seconds=stop_seconds,
            peers=running.peers,
            restarts=running.restarts,
        )
        self._watch = Watch(record, self.generation, nodes, self.hear)
        record.nodes = tuple(member.node for member in running.members)
        record.generation = running.number

    async def run(self, announce: Callable[[Generation], None] | None) -> Outcome:
        """From StartRanks to the last exit, and until the members wait again.

        Args:
            announce: tells of a new generation; None for one that is taken up again.

        Raises:
            FleetError: the members can't be had.
        """
        generation = self.generation
        generation.start()
        if announce is None:
            for told in self._record.inputs(generation.number):
                apply(told, generation)
        else:
            with self.keeping():
                announce(generation)
        generation.clock = time.monotonic
        await self._until_over()
        outcome = generation.outcome()
        await self._settle(UPLOAD_SECONDS if outcome.setback else SETTLE_SECONDS)
        return outcome

    # ── what happens ──────────────────────────────────────────────────────────────────────────

    def hear(self, told: Input) -> None:
        """Writes an input down and lets the generation act on it."""
        if matters(told, self.generation):
            self._record.took(self.generation.number, told)
        apply(told, self.generation)
        self._alarm.ring()

    def tell(self, node: Node, message: OfTerm) -> None:
        """Keeps what a worker's message says and lets the generation act on it."""
        with self.keeping():
            self._tell(node, message)

    def _tell(self, node: Node, message: OfTerm) -> None:
        record = self._record
        if isinstance(message, RankLog):
            record.log_line(node.name, message)
            return
        if message.generation not in (None, self.generation.number):
            return
        self._watch.take(node, message)
        if isinstance(message, Beat | Stacks):
            return
        if isinstance(message, RankSaid):
            record.report(message.rank, message.report)
        elif isinstance(message, Uploaded) and message.what == "checkpoint" and message.error:
            record.note("checkpoint_not_kept", f"{message.name}: {message.error}")
        self.hear(Heard(node=node.name, message=message))

    def spares(self, node: Node) -> bool:
        """Whether a node without a connection shows by the job's steps that it goes on."""
        return self._watch.shows_life(node.name)

    # ── the loop ──────────────────────────────────────────────────────────────────────────────

    async def _until_over(self) -> None:
        generation, began = self.generation, time.monotonic()
        while not generation.over:
            with self.keeping():
                state = _STATES.get(generation.phase, self._record.state)
                self._record.enter(state, generation.reason)
            back = self._could_have_back()
            regroup = began + REGROUP_SECONDS if back else None
            deadlines = (generation.deadline, self._watch.look(), regroup)
            wakes = min((moment for moment in deadlines if moment is not None), default=None)
            await self._alarm.wait(wakes)
            now = time.monotonic()
            if generation.deadline is not None and now >= generation.deadline:
                self.hear(Ticked())
            if now >= began + REGROUP_SECONDS and (back := self._could_have_back()):
                self.hear(Regroup(why=f"{', '.join(back)} came back"))

    def _could_have_back(self) -> Sequence[str]:
        """Nodes that this job had, has lost, and could have again; a script is not disturbed."""
        generation = self.generation
        trains = isinstance(self._record.work, Job) and generation.trains
        if generation.phase is not Phase.RUNNING or not trains:
            return ()
        return self._returned(frozenset(member.node for member in generation.members))

    async def _settle(self, seconds: float) -> None:
        """Waits, not for ever, until the members have sent what they hold and wait again.

        Nodes that are lost or have left are not waited for, nor those whose ranks did not end.
        """
        generation, began = self.generation, time.monotonic()
        members = {member.node for member in generation.members} - generation.lingering
        while any(
            node.ranks and not node.gone and not node.leaving and node.job == self._record.id
            for node in self._nodes.all()
            if node.name in members
        ):
            until = began + (SETTLE_SECONDS if self._record.stop_reason else seconds)
            if time.monotonic() >= until:
                return
            await self._alarm.wait(until)

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """A full disk under the job's folder pauses the job, another trouble there ends it."""
        try:
            yield
        except OSError as why:
            full = why.errno in (errno.ENOSPC, errno.EDQUOT)
            self.hear(FolderFailed(what=self._record.unwritable(why), full=full))
