"""Held-out loss, computed by all ranks together, equal to the bit for any number of them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import cached_property

from llamaforge.spec import shares
from llamaforge.spec.beat import Phase
from llamaforge.train import ballot as ballots
from llamaforge.train import beat, diagnose
from llamaforge.train.ballot import Ballot
from llamaforge.train.group import Group
from llamaforge.train.rows.feed import Feed
from llamaforge.train.slice_pass import LOSS_BITS, SlicePass
from llamaforge.train.step import Slice
from llamaforge.train.work import slices_of

_STRETCH = 256
"""Rows that are packed together: the search for room stays short on large sets."""


class HeldOut:
    """The held-out rows, packed once.

    Args:
        feed: their tokens.
        rows: how many there are.
        budget: tokens per slice.
    """

    def __init__(self, feed: Feed, rows: int, budget: int) -> None:
        self._feed = feed
        self._rows = range(rows)
        self._budget = budget

    def loss(self, group: Group, passes: SlicePass, speeds: list[float]) -> tuple[float, float]:
        """Mean loss per trained token over all held-out rows.

        Returns:
            The loss (NaN without any trained token), and the seconds that it took here.

        Raises:
            NotFinite: the loss of a row is NaN or infinite; the other ranks have been told.
            PeerFailed: another rank could not go on.
        """
        begin = time.perf_counter()
        votes = ballots.agree(
            group,
            lambda: self._share(passes, speeds, group.rank),
            tensors=0,
            where="an evaluation",
        )
        total = sum(vote.trained for vote in votes)
        summed = math.ldexp(sum(vote.loss for vote in votes), -LOSS_BITS)
        return (summed / total if total else math.nan), time.perf_counter() - begin

    def _share(self, passes: SlicePass, speeds: Sequence[float], rank: int) -> Ballot:
        loss = trained = 0
        for index in shares.assign([piece.tokens for piece in self._slices], speeds)[rank]:
            beat.now(Phase.EVALUATES)
            rows = self._slices[index].rows
            result = passes.evaluate([self._feed[row] for row in rows])
            if not math.isfinite(result.loss):
                raise diagnose.held_out(self._feed, passes, rows)
            loss += result.fixed
            trained += result.trained
        return Ballot(loss=loss, trained=trained)

    @cached_property
    def _slices(self) -> list[Slice]:
        slices: list[Slice] = []
        for at in range(0, len(self._rows), _STRETCH):
            rows = self._rows[at : at + _STRETCH]
            slices += slices_of(rows, [self._feed[row].weight for row in rows], self._budget)
        return slices
