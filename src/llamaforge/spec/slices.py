"""Steps and slices: which rows a step holds, and how they are packed into units of work.

A step is a fixed number of rows of the order; a slice is a few whole rows within a token budget.
Neither depends on how many machines take part: that is what makes the result independent of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llamaforge.spec.job import Job
from llamaforge.spec.order import Permutation


@dataclass(frozen=True)
class StepRows:
    """The rows of one step."""

    step: int
    """Counts from 0 over the whole job."""
    epoch: int
    """Counts from 0."""
    rows: tuple[int, ...]
    """Row numbers in the order in which the permutation gives them."""


class Order:
    """The steps of a job: from step number to row numbers, with O(1) memory."""

    def __init__(self, job: Job) -> None:
        self._rows = job.rows
        self._per_step = job.rows_per_step
        self._steps_per_epoch = job.steps_per_epoch
        self._seed = job.spec.seed
        self._permutation: tuple[int, Permutation] | None = None

    def step(self, step: int) -> StepRows:
        """The rows of step `step`, counted from 0. The last step of an epoch may be shorter."""
        epoch, within = divmod(step, self._steps_per_epoch)
        permutation = self._of_epoch(epoch)
        first = within * self._per_step
        last = min(first + self._per_step, self._rows)
        return StepRows(step, epoch, tuple(permutation[i] for i in range(first, last)))

    def _of_epoch(self, epoch: int) -> Permutation:
        if self._permutation is None or self._permutation[0] != epoch:
            self._permutation = (epoch, Permutation(self._rows, seed=self._seed, epoch=epoch))
        return self._permutation[1]


LEAST_TOKENS = 32
"""A slice's budget never falls below this: smaller ones cost more in overhead than they share."""


def budget(lengths: Sequence[int], *, slices: int, most: int) -> int:
    """The token budget of a step's slices, from the step's own rows alone.

    Args:
        lengths: tokens of each of its rows.
        slices: how many slices to aim for, so that many machines can share the step.
        most: tokens that a slice may have at the most; memory is planned for that.
    """
    return min(most, max(LEAST_TOKENS, -(-sum(lengths) // slices)))


def pack(lengths: Sequence[int], budget: int) -> list[tuple[int, ...]]:
    """Packs a step's rows into slices by first-fit decreasing.

    Args:
        lengths: tokens of each row, in the step's order; a row of length 0 is left out (it has
            nothing to train).
        budget: tokens per slice. A longer row is a slice of its own.

    Returns:
        Slices as positions into `lengths`, ascending within a slice, slices by their first
        position. At most 11/9 of the fewest possible slices, plus one (Dósa, 2007).
    """
    slices: list[list[int]] = []
    room: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        need = lengths[position]
        if need == 0:
            continue
        fit = next((s for s, free in enumerate(room) if free >= need), None)
        if fit is None:
            slices.append([])
            room.append(budget)
            fit = len(slices) - 1
        slices[fit].append(position)
        room[fit] -= need
    return sorted(tuple(sorted(members)) for members in slices)
