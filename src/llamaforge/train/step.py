"""One step: every rank computes its slices, all agree on the verdict, the integers are summed.

A step that overflowed is computed again with the scale that it asks for; nothing of the first
attempt is left. What comes out has the same bits for any number of ranks and any shares.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from llamaforge.errors import LlamaForgeError
from llamaforge.spec.beat import Phase
from llamaforge.train import ballot as ballots
from llamaforge.train import beat
from llamaforge.train.ballot import Ballot
from llamaforge.train.exact.fixed import SliceSum, exponents, overflows, squared_norm
from llamaforge.train.exact.layout import Layout
from llamaforge.train.group import Group
from llamaforge.train.rows.tokens import Tokens
from llamaforge.train.slice_pass import LOSS_BITS, SlicePass

_MOST_ATTEMPTS = 3


@dataclass(frozen=True)
class Slice:
    """One unit of work of a step."""

    index: int
    """Its place in the step; with the step's number it keys dropout."""
    rows: tuple[int, ...]
    """Row numbers."""
    tokens: int


@dataclass(frozen=True, kw_only=True)
class StepSum:
    """The result of a step before it is committed. The same on every rank."""

    scales: list[int | None]
    """Exponent of each tensor's integers."""
    maxima: list[float]
    """Largest slice value of each tensor."""
    loss: float
    """Mean loss per trained token."""
    loss_fixed: int
    """The loss summed over the step, in units of 2^-24."""
    trained: int
    """Trained tokens."""
    tokens: int
    """All tokens."""
    norm: float
    """Norm of the mean gradient, before clipping."""
    redone: int
    """Attempts that overflowed."""
    ballots: list[Ballot]
    """Everybody's last ballot, by rank."""


class StepRunner:
    """Computes steps together with the other ranks.

    Args:
        group: the ranks.
        layout: the trained tensors.
        passes: how a slice goes through the model.
        seed: the job's seed.
        diagnose: called with the step, a slice and its rows when a loss or gradient isn't finite;
            returns the error to raise.
    """

    def __init__(
        self,
        group: Group,
        layout: Layout,
        passes: SlicePass,
        *,
        seed: int,
        diagnose: Callable[[int, Slice, Sequence[Tokens]], LlamaForgeError],
    ) -> None:
        self._group = group
        self._layout = layout
        self._passes = passes
        self._seed = seed
        self._diagnose = diagnose
        self._local = SliceSum(layout)
        self.total = layout.zeros(torch.int32)
        """The integer gradient sum over all ranks, valid after `run`."""

    def run(
        self,
        step: int,
        *,
        slices: int,
        mine: Sequence[Slice],
        rows: Callable[[Slice], Sequence[Tokens]],
        maxima: list[float],
        word: Callable[[], Ballot],
    ) -> StepSum:
        """Computes one step; `total` then holds the sum.

        Args:
            step: counts from 0.
            slices: slices of the step over all ranks.
            mine: those that this rank computes.
            rows: gives a slice's rows.
            maxima: largest slice value per tensor of the last committed step.
            word: what this rank has to say besides its numbers (stop, state).

        Raises:
            PeerFailed: another rank could not go on.
            LlamaForgeError: this rank could not; the others have been told.
        """
        scales = exponents(maxima, slices)
        for attempt in range(_MOST_ATTEMPTS):
            self._local.begin(scales, slices)
            votes = ballots.agree(
                self._group,
                lambda: self._my_slices(step, mine, rows, word()),
                tensors=len(self._layout),
                where=f"step {step + 1}",
            )
            seen = ballots.largest(votes)
            over = overflows(seen, scales, slices)
            asked = exponents(seen, slices)
            scales = [
                new if late or old is None else old
                for old, new, late in zip(scales, asked, over, strict=True)
            ]
            if not any(over) and all(vote.kept_all for vote in votes):
                return self._sum(votes, seen, scales, attempt)
        raise LlamaForgeError(f"step {step + 1} overflowed {_MOST_ATTEMPTS} times in a row")

    def _my_slices(
        self,
        step: int,
        mine: Sequence[Slice],
        rows: Callable[[Slice], Sequence[Tokens]],
        word: Ballot,
    ) -> Ballot:
        loss = trained = tokens = 0
        begin = time.perf_counter_ns()
        for piece in mine:
            beat.now(Phase.SLICE)
            content = rows(piece)
            result = self._passes.train(content, seed=(self._seed, step, piece.index))
            maxima = self._passes.maxima()
            if not all(map(math.isfinite, (result.loss, *maxima))):
                raise self._diagnose(step, piece, content)
            self._local.add(self._passes.gradient, maxima)
            loss += result.fixed
            trained += result.trained
            tokens += result.tokens
        beat.now(Phase.AGREES)
        return Ballot(
            stop=word.stop,
            state=word.state,
            kept_all=self._local.kept_all,
            loss=loss,
            trained=trained,
            tokens=tokens,
            nanoseconds=time.perf_counter_ns() - begin,
            maxima=tuple(self._local.maxima),
        )

    def _sum(
        self, votes: list[Ballot], seen: list[float], scales: list[int | None], redone: int
    ) -> StepSum:
        self._local.settle(scales)
        self._group.sum_into(self.total, self._local.total)
        trained = sum(vote.trained for vote in votes)
        loss = sum(vote.loss for vote in votes)
        squares = squared_norm(self.total, self._layout, scales)
        return StepSum(
            scales=scales,
            maxima=seen,
            loss=math.ldexp(loss, -LOSS_BITS) / max(1, trained),
            loss_fixed=loss,
            trained=trained,
            tokens=sum(vote.tokens for vote in votes),
            norm=math.sqrt(squares) / max(1, trained),
            redone=redone,
            ballots=votes,
        )
