"""What is known about a running job, summed up from its stream of updates.

Every way of showing a job (bar, plain lines, final summary) reads the same tally.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from llamaforge.spec.states import JobState
from llamaforge.wire.updates import (
    Ended,
    GenerationStarted,
    JobUpdate,
    MetricLine,
    NodeRanks,
    NoteLine,
    StateChanged,
)

WINDOW = 20
"""Steps over which the time left is estimated."""


class Tally:
    """The state of one job as far as its updates have told it.

    Args:
        total_steps: steps of the whole job.
        first_step: steps that were committed before this run of it.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        first_step: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total_steps = total_steps
        self.step = first_step
        self.state = JobState.QUEUED
        self.nodes: tuple[NodeRanks, ...] = ()
        self.generation = 0
        self.last: dict[str, Any] = {}
        """The newest training line of metrics.jsonl."""
        self.evaluations: list[dict[str, Any]] = []
        """All lines with a held-out loss."""
        self.notes: list[NoteLine] = []
        self.slices: Counter[str] = Counter()
        """Slices computed by each node."""
        self.ended: Ended | None = None
        self._clock = clock
        self._times: deque[tuple[int, float]] = deque(maxlen=WINDOW + 1)
        self._tokens = 0
        self._seconds = 0.0

    def take(self, update: JobUpdate) -> None:
        """Adds one update."""
        if isinstance(update, StateChanged):
            self.state = update.state
            if not update.state.final:
                self.ended = None  # it was resumed
        elif isinstance(update, GenerationStarted):
            self.nodes, self.generation = update.nodes, update.generation
            self._go_back(update.after)
        elif isinstance(update, MetricLine):
            self._metric(update.line)
        elif isinstance(update, NoteLine):
            self.notes.append(update)
        elif isinstance(update, Ended):
            self.state, self.ended = update.state, update

    def _go_back(self, after: int) -> None:
        """A generation starts after this step: later ones are done, and told, again."""
        if after < self.step:
            self.step = after
            self.evaluations = [e for e in self.evaluations if int(e.get("step", 0)) <= after]
            self._times.clear()

    def _metric(self, line: dict[str, Any]) -> None:
        if "heldout_loss" in line:
            self.evaluations.append(line)
        if "loss" not in line:
            return
        self.last = line
        self.step = int(line.get("step", self.step))
        self._times.append((self.step, self._clock()))
        self.slices.update({str(node): int(n) for node, n in line.get("shares", {}).items()})
        self._tokens += int(line.get("total_tokens", 0))
        self._seconds += float(line.get("seconds", 0.0))

    @property
    def loss(self) -> float | None:
        """Training loss of the last step, per trained token."""
        return self.last.get("loss")

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens per second of the last step, over all nodes."""
        return self.last.get("tokens_per_second")

    @property
    def mean_tokens_per_second(self) -> float | None:
        """Tokens per second over all steps seen, evaluations and saving left out."""
        return self._tokens / self._seconds if self._seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Estimate from the last steps; None before the second one."""
        if len(self._times) < 2:
            return None
        (first, begin), (last, end) = self._times[0], self._times[-1]
        if last <= first:
            return None
        return (end - begin) / (last - first) * (self.total_steps - last)

    @property
    def memory(self) -> int | None:
        """Largest memory of a rank in bytes, where the ranks tell it."""
        return self.last.get("memory")

    @property
    def shares(self) -> dict[str, float]:
        """Each node's part of the slices computed so far, from 0 to 1, largest first."""
        total = sum(self.slices.values())
        return {node: n / total for node, n in self.slices.most_common()} if total else {}

    @property
    def heldout(self) -> tuple[float | None, float | None]:
        """Held-out loss before the first step and at the last evaluation since; None: not seen."""
        before = [e["heldout_loss"] for e in self.evaluations if not e.get("step")]
        since = [e["heldout_loss"] for e in self.evaluations if e.get("step")]
        return before[-1] if before else None, since[-1] if since else None

    def note(self, kind: str) -> NoteLine | None:
        """The newest note of a kind."""
        return next((note for note in reversed(self.notes) if note.kind == kind), None)
