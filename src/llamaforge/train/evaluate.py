"""Held-out loss, computed by all ranks together, equal to the bit for any number of them."""

from __future__ import annotations

import math
import time

from llamaforge.spec import shares
from llamaforge.train import ballot as ballots
from llamaforge.train.ballot import Ballot
from llamaforge.train.group import Group
from llamaforge.train.rows.feed import Feed
from llamaforge.train.slice_pass import LOSS_BITS, SlicePass
from llamaforge.train.work import slices_of


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
        """
        begin = time.perf_counter()
        # Packing a stretch at a time keeps the search for room short on large sets.
        pieces = []
        for at in range(0, len(self._rows), 256):
            rows = self._rows[at : at + 256]
            lengths = [self._feed[row].weight for row in rows]
            pieces += slices_of(rows, lengths, self._budget)
        mine = shares.assign([piece.tokens for piece in pieces], speeds)[group.rank]
        loss = trained = 0
        for index in mine:
            result = passes.evaluate([self._feed[row] for row in pieces[index].rows])
            loss += result.fixed
            trained += result.trained
        votes = ballots.cast(group, Ballot(loss=loss, trained=trained))
        total = sum(vote.trained for vote in votes)
        summed = math.ldexp(sum(vote.loss for vote in votes), -LOSS_BITS)
        return (summed / total if total else math.nan), time.perf_counter() - begin
