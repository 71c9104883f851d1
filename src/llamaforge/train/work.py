"""What there is to do in a step: rows of the order, their tokens, and the slices they pack into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llamaforge.spec.job import Job
from llamaforge.spec.slices import Order, budget, pack
from llamaforge.train.rows.feed import Feed
from llamaforge.train.rows.tokens import Tokens
from llamaforge.train.step import Slice


@dataclass(frozen=True)
class Work:
    """One step's work, the same on every rank."""

    step: int
    epoch: int
    rows: tuple[int, ...]
    """All rows of the step, in order, those without a trained token included."""
    slices: tuple[Slice, ...]


class Planner:
    """Makes every step's work from the job alone.

    Args:
        job: the job.
        feed: the tokens of its rows.
    """

    def __init__(self, job: Job, feed: Feed) -> None:
        self._order = Order(job)
        self._feed = feed
        self._spec = job.spec
        self._last = job.total_steps
        self._steps_per_epoch = job.steps_per_epoch

    def step(self, step: int) -> Work:
        """The work of step `step`, counted from 0."""
        where = self._order.step(step)
        lengths = [self._feed[row].weight for row in where.rows]
        room = budget(lengths, slices=self._spec.slices, most=self._spec.slice_tokens)
        return Work(step, where.epoch, where.rows, slices_of(where.rows, lengths, room))

    def rows(self, piece: Slice) -> list[Tokens]:
        """The tokens of a slice's rows."""
        return [self._feed[row] for row in piece.rows]

    def canary(self) -> list[Tokens]:
        """The rows of the job's first slice; none when no row of an epoch has a trained token."""
        works = (self.step(step) for step in range(self._steps_per_epoch))
        first = next((work.slices[0] for work in works if work.slices), None)
        return [] if first is None else self.rows(first)

    def upcoming(self, step: int) -> Iterator[int]:
        """Row numbers in the order in which they will be needed, from `step` on."""
        for later in range(step, self._last):
            yield from self._order.step(later).rows


def slices_of(rows: Sequence[int], lengths: Sequence[int], room: int) -> tuple[Slice, ...]:
    """Packs rows of these lengths into slices of `room` tokens; length 0 is left out."""
    return tuple(
        Slice(index, tuple(rows[at] for at in members), sum(lengths[at] for at in members))
        for index, members in enumerate(pack(lengths, room))
    )
