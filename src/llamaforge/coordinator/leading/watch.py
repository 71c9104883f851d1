"""Watches a running generation: does it move, who still lives, and who stopped first if not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from llamaforge.coordinator.leading.generation import Generation, Phase
from llamaforge.coordinator.leading.hang import Pace, first_stopped, report
from llamaforge.coordinator.leading.inputs import Hang, Input
from llamaforge.coordinator.node import Node
from llamaforge.coordinator.nodes import Nodes
from llamaforge.coordinator.record import JobRecord
from llamaforge.monitor.folder import write_whole
from llamaforge.spec import ranks
from llamaforge.spec.job import Job
from llamaforge.wire.messages import Beat, DumpStacks, RankSaid, Stacks

STACKS_SECONDS = 6.0
"""How long nodes may take to say where their ranks stand."""
ALIVE_SECONDS = 10.0
"""A step that was committed so lately shows that all ranks of the generation live."""

log = logging.getLogger("llamaforge.coordinator")


class Watch:
    """The watch over one generation.

    Args:
        record: the job.
        generation: what is watched.
        nodes: the fleet.
        hear: lets the generation know.
    """

    def __init__(
        self,
        record: JobRecord,
        generation: Generation,
        nodes: Nodes,
        hear: Callable[[Input], None],
    ) -> None:
        self._record, self._generation = record, generation
        self._nodes, self._hear = nodes, hear
        self._pace = Pace(time.monotonic())
        self._stacks: dict[str, Stacks] = {}
        self._asked: float | None = None
        self._moved = time.monotonic()
        self._step = record.step
        self._members = {
            m.node: range(m.first_rank, m.first_rank + m.count) for m in generation.members
        }

    def take(self, node: Node, message: object) -> None:
        """A worker said something about the generation."""
        now = time.monotonic()
        if isinstance(message, Stacks):
            self._stacks[node.name] = message
        elif isinstance(message, Beat):
            self._saw(now, message.step)
        elif isinstance(message, RankSaid) and isinstance(message.report, ranks.Metric):
            self._saw(now, int(message.report.line.get("step", 0)))

    def shows_life(self, name: str) -> bool:
        """Whether steps have been committed since a node fell silent: its ranks took part."""
        recent = time.monotonic() - self._moved < ALIVE_SECONDS
        return recent and name in self._members and self._generation.phase is Phase.RUNNING

    def look(self) -> float | None:
        """Acts on a generation that does not move. Returns when to look again."""
        now = time.monotonic()
        if self._asked is not None:
            return self._await_stacks(now)
        if self._generation.phase is not Phase.RUNNING or not isinstance(self._record.work, Job):
            return None
        if self._any_silent():
            self._pace.restart(now)  # nothing can be heard of it, whatever it does
            return now + ALIVE_SECONDS
        if not self._pace.overdue(now):
            return self._pace.deadline
        log.warning(
            "job %s has not moved for %.0f s: asking for stacks",
            self._record.id,
            self._pace.silent(now),
        )
        self._asked = now
        question = DumpStacks(job_id=self._record.id, generation=self._generation.number)
        for name in self._members:
            self._nodes.send(name, question)
        return now + STACKS_SECONDS

    def _saw(self, now: float, step: int) -> None:
        self._pace.saw(now, step)
        if step > self._step:
            self._step, self._moved = step, now

    def _any_silent(self) -> bool:
        nodes = (self._nodes.get(name) for name in self._members)
        return any(node is None or node.connection is None for node in nodes)

    def _await_stacks(self, now: float) -> float | None:
        assert self._asked is not None
        if len(self._stacks) < len(self._members) and now < self._asked + STACKS_SECONDS:
            return self._asked + STACKS_SECONDS
        if self._pace.silent(now) < now - self._asked:  # it moves again
            self._asked, self._stacks = None, {}
            return self._pace.deadline
        self._tell(now)
        self._asked, self._stacks = None, {}
        return None

    def _tell(self, now: float) -> None:
        """Names the rank that stopped first, and keeps everybody's stacks."""
        stacks = [rank for node in self._stacks.values() for rank in node.ranks]
        mute = [r for name, of in self._members.items() if name not in self._stacks for r in of]
        rank, why = first_stopped(stacks, mute=mute)
        by_rank = {r: name for name, of in self._members.items() for r in of}
        nodes = [by_rank[r] for r in sorted(by_rank)]
        text = report(stacks, nodes, chosen=rank, why=why)
        seconds = self._pace.silent(now)
        name = f"generation-{self._generation.number}-step-{self._step}.txt"
        folder = self._record.path / "hangs"
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / name, text.encode())
        self._record.note(
            "hang",
            f"nothing has moved for {seconds:.0f} s; rank {rank} on {nodes[rank]} stopped first: "
            f"{why}; stacks in hangs/{name}",
            rank=rank,
            node=nodes[rank],
            seconds=round(seconds, 1),
        )
        self._hear(Hang(rank=rank, why=why, seconds=seconds))
