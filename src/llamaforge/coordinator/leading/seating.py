"""What a job asks of the fleet between two generations: how many nodes, which, and for how long it
waits for those that it had."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from llamaforge.coordinator.leading.history import History
from llamaforge.coordinator.nodes import Nodes
from llamaforge.coordinator.placement import natural
from llamaforge.coordinator.record import JobRecord
from llamaforge.coordinator.scheduler import Waiting

AGAIN_SECONDS = 15.0
"""Before nodes that preflight has refused are asked again."""


class Seating:
    """The seats of one job.

    Args:
        record: the job.
        nodes: the fleet.
        history: the job's generations so far.
        ask: told that the job wants nodes, or wants some no more.
        return_grace: how long a job waits for a node that left or was lost, in seconds.
    """

    def __init__(
        self,
        record: JobRecord,
        nodes: Nodes,
        history: History,
        *,
        ask: Callable[[], None],
        return_grace: float,
    ) -> None:
        self._record, self._nodes, self._history = record, nodes, history
        self._ask, self._return_grace = ask, return_grace
        self._seats: asyncio.Future[tuple[str, ...]] | None = None
        self._grace_ends: float | None = None
        self._refused: dict[str, tuple[float, str]] = {}

    async def taken(self) -> tuple[str, ...]:
        """The nodes that the fleet gives; none when the job is to stop."""
        if self._record.stop_reason:
            return ()
        self._grace_ends = None
        self._seats = asyncio.get_running_loop().create_future()
        self._ask()
        try:
            return await self._seats
        finally:
            self._seats = None

    def give_up(self) -> None:
        """The job is to stop: it waits no longer."""
        if self._seats is not None and not self._seats.done():
            self._seats.set_result(())

    def give(self, names: Sequence[str]) -> None:
        """The fleet gives nodes."""
        assert self._seats is not None
        for name in names:
            node = self._nodes.get(name)
            assert node is not None
            self._nodes.give(node, self._record.id)
        self._seats.set_result(tuple(names))

    def free(self, names: Sequence[str]) -> None:
        """Gives nodes back on which nothing was started."""
        for name in names:
            node = self._nodes.get(name)
            if node is not None and node.job == self._record.id and not node.ranks:
                self._nodes.give(node, "")
        self._ask()

    def waiting(self, now: float, avoid: frozenset[str]) -> tuple[Waiting, float | None] | None:
        """What the job wants, and when that changes by itself; None: it wants nothing now.

        Args:
            now: monotonic seconds.
            avoid: nodes to be left out as long as there are enough others.
        """
        if self._seats is None or self._seats.done():
            return None
        must, wakes = self._must(now)
        never = {name: until for name, (until, _) in self._refused.items() if now < until}
        asks = Waiting(
            id=self._record.id,
            number=self._record.number,
            wishes=self._record.submission.wishes,
            must=frozenset(must),
            prefer=self._history.nodes,
            count=self._history.members,
            avoid=avoid,
            never=frozenset(never),
            canary=self._canary(),
        )
        times = [*never.values(), *([] if wakes is None else [wakes])]
        return asks, min(times, default=None)

    def _must(self, now: float) -> tuple[list[str], float | None]:
        """The nodes that it waits for, and until when; None: until they come, or others do.

        Nodes that left or were lost have a while to come back, from the moment on at which the job
        could go on without them; with the policy `wait`, for ever.
        """
        last = [self._nodes.get(name) for name in sorted(self._history.nodes, key=natural)]
        must = [node.name for node in last if node is not None and node.away]
        if not must or self._record.submission.wishes.on_node_loss == "wait":
            return must, None
        ready = sum(node.ready for node in self._nodes.all())
        if ready >= self._history.members:
            return [], None  # as many as before are there
        if self._grace_ends is None and ready:
            self._grace_ends = now + self._return_grace
        if self._grace_ends is not None and now >= self._grace_ends:
            return [], None
        return must, self._grace_ends

    def _canary(self) -> str:
        """The bits that the job's earlier generations computed to; "" where it may change them."""
        if not self._record.submission.wishes.same_numbers:
            return ""
        last = (self._nodes.get(name) for name in self._history.nodes)
        return next((node.canary for node in last if node is not None and node.canary), "")

    # ── refusals ──────────────────────────────────────────────────────────────────────────────

    def refuse(self, name: str, why: str) -> None:
        """A preflight has refused a node: it is left out for a while."""
        self._refused[name] = (time.monotonic() + AGAIN_SECONDS, why)

    def refusals(self) -> str:
        """Which nodes are left out now, and why, for people; "" for none."""
        now = time.monotonic()
        return "; ".join(
            f"{name} can't take part: {why}"
            for name, (until, why) in sorted(self._refused.items())
            if now < until
        )

    def others_are_left(self) -> bool:
        """Whether a node of the fleet has not been refused: it may take the job alone."""
        return any(not node.away and node.name not in self._refused for node in self._nodes.all())
