"""When a job has stopped moving, and which rank stopped first: arithmetic without I/O.

A worker sends a `Beat` while something moves on its node: a slice, a row of an evaluation, a step.
A rank that hangs makes all others wait for it, so all nodes fall silent, and that is what `Pace`
looks for. How long is too long follows from the job's own steps.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Collection, Sequence

from llamaforge.wire.messages import RankStack

LEAST = 10.0
"""Seconds of silence that are never too long."""
TIMES = 8.0
"""So many usual steps without a sign of life are too long."""
SURE = 5
"""Steps after which the usual time between them is believed; before, twice as much is granted."""
FIRST = 900.0
"""Seconds for the first step of a generation, which loads the model and reads all rows."""
SILENCES = 3.0
"""A silence may be so many times as long as the longest one that had an end."""
REMEMBERED = 32
"""Steps, and silences, that are looked back at."""
NOTABLE = 2.0
"""Shorter silences are not worth remembering: a moving node is heard once a second."""
LONGEST = 1800.0
"""Seconds that are always too long once there was a step."""

_STOPPED = {
    "T": "its process is stopped (state T), as by SIGSTOP: end that with `kill -CONT PID` there",
    "t": "its process is stopped by a debugger (state t)",
    "Z": "its process is dead (state Z)",
    "X": "its process is dead (state X)",
}


class Pace:
    """Learns how fast a generation goes from sightings on any of its nodes.

    Args:
        now: monotonic seconds at which the ranks were started.
    """

    def __init__(self, now: float) -> None:
        self._last = now
        """The last sign of life."""
        self._step: int | None = None
        self._advanced = now
        """When the last step was seen."""
        self._steps: deque[float] = deque(maxlen=REMEMBERED)
        """Seconds that each of the last steps took."""
        self._silences: deque[float] = deque(maxlen=REMEMBERED)
        self._granted = 0.0

    def saw(self, now: float, step: int) -> None:
        """A node said that its ranks move, or that a step was committed.

        Args:
            now: monotonic seconds.
            step: committed steps as that node knows; others may know more, or know it sooner.
        """
        now = max(now, self._last)
        if self._steps and now - self._last > NOTABLE:
            self._silences.append(now - self._last)
        self._last, self._granted = now, 0.0
        if self._step is None:
            self._step, self._advanced = step, now  # it goes on from a checkpoint
        elif step > self._step:
            each = (now - self._advanced) / (step - self._step)
            self._steps.extend([each] * min(step - self._step, SURE - 1))
            self._step, self._advanced = step, now

    def grant(self, seconds: float) -> None:
        """Something begins that may take so long without a sign of life, such as a save."""
        self._granted = max(self._granted, seconds)

    def restart(self, now: float) -> None:
        """Counts from now on: nothing could be heard before, as while a connection was broken."""
        self._last = max(now, self._last)

    @property
    def usual(self) -> float | None:
        """Seconds between two steps; None before there were two sightings of different steps."""
        return statistics.median(self._steps) if self._steps else None

    @property
    def limit(self) -> float:
        """Seconds of silence that are too long now."""
        usual = self.usual
        if usual is None:
            return max(FIRST, self._granted)
        few = 2.0 if len(self._steps) < SURE else 1.0
        learnt = max(LEAST * few, TIMES * few * usual, SILENCES * max(self._silences, default=0.0))
        return max(min(learnt, max(LONGEST, TIMES * usual)), self._granted)

    @property
    def deadline(self) -> float:
        """Monotonic seconds at which it is overdue unless something is seen before."""
        return self._last + self.limit

    def silent(self, now: float) -> float:
        """Seconds since the last sign of life."""
        return max(0.0, now - self._last)

    def overdue(self, now: float) -> bool:
        """Whether nothing has moved for too long."""
        return now >= self.deadline


def first_stopped(stacks: Sequence[RankStack], *, mute: Collection[int] = ()) -> tuple[int, str]:
    """The rank that most likely stopped first, and why we think so, for people.

    A process that can't run comes first, then a rank whose node didn't answer, then one that waits
    for nobody, then the one that has been idle for the longest.

    Args:
        stacks: where each rank stands; at least one, unless there are mute ones.
        mute: ranks whose nodes didn't say where they stand.

    Raises:
        ValueError: there is no rank at all.
    """
    halted = [rank for rank in stacks if rank.state in _STOPPED]
    working = [rank for rank in stacks if not rank.waits]
    for these in (halted, [] if mute else working, [] if mute else stacks):
        if these:
            chosen = min(these, key=lambda rank: (-rank.idle, rank.rank))
            return chosen.rank, _why(chosen)
    if not mute:
        raise ValueError("no rank to choose from")
    return min(mute), "its node did not say where its ranks stand"


def _why(rank: RankStack) -> str:
    if rank.state in _STOPPED:
        return _STOPPED[rank.state]
    while_ = f" ({rank.phase}, step {rank.step + 1})" if rank.phase else ""
    if rank.state == "D":
        return f"it waits for a disk or a driver (state D){while_}"
    if rank.waits:
        return f"all ranks wait for each other; it has been idle for {rank.idle:.0f} s, the longest"
    return f"it waits for no other rank and has done nothing for {rank.idle:.0f} s{while_}"


def report(stacks: Sequence[RankStack], nodes: Sequence[str], *, chosen: int, why: str) -> str:
    """The text that is kept of a hang: what was concluded, then every rank's stacks.

    Args:
        stacks: of all ranks that said something.
        nodes: the node of each rank, by rank.
        chosen: the rank that stopped first.
        why: from `first_stopped`.
    """
    parts = [f"rank {chosen} on {nodes[chosen]} stopped first: {why}\n"]
    for rank in sorted(stacks, key=lambda rank: rank.rank):
        waits = ", waits for others" if rank.waits else ""
        parts.append(
            f"\n── rank {rank.rank} on {nodes[rank.rank]}: state {rank.state}, "
            f"{rank.phase or 'phase unknown'}{waits}, step {rank.step}, "
            f"idle for {rank.idle:.1f} s\n{rank.text}\n"
        )
    return "".join(parts)
