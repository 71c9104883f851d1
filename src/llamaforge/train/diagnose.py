"""Finds where a slice stopped being a number: the row, and the first tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llamaforge.errors import LlamaForgeError
from llamaforge.train.exact.layout import Layout
from llamaforge.train.rows.feed import Feed
from llamaforge.train.rows.tokens import Tokens
from llamaforge.train.slice_pass import SlicePass
from llamaforge.train.step import Slice


class NotFinite(LlamaForgeError):
    """A loss or a gradient is NaN or infinite; training on would spoil the weights."""


class Diagnosis:
    """Makes the error for a slice whose loss or gradient is not finite.

    Args:
        layout: the trained tensors.
        passes: how a slice goes through the model.
        feed: knows where a row came from.
        seed: the job's seed.
    """

    def __init__(self, layout: Layout, passes: SlicePass, feed: Feed, seed: int) -> None:
        self._layout = layout
        self._passes = passes
        self._feed = feed
        self._seed = seed

    def __call__(self, step: int, piece: Slice, rows: Sequence[Tokens]) -> NotFinite:
        """Computes the slice's rows one by one and names the first that breaks."""
        where = f"step {step + 1}, slice {piece.index}"
        for number, row in zip(piece.rows, rows, strict=True):
            loss = self._passes.train([row], seed=(self._seed, step, piece.index)).loss
            tensor = self._first_bad_tensor()
            if not math.isfinite(loss) or tensor is not None:
                return self._error(where, number, loss, tensor)
        return NotFinite(
            f"{where}, rows {', '.join(map(str, piece.rows))}: the gradient is not finite, "
            f"though each row alone is; first tensor: {self._first_bad_tensor()}",
            hint="lower learning_rate, or use precision fp32; the last checkpoint is whole",
        )

    def _error(self, where: str, row: int, loss: float, tensor: str | None) -> NotFinite:
        what = [] if math.isfinite(loss) else [f"the loss is {loss}"]
        what += (
            [f"the first tensor with a gradient that is not finite is {tensor}"] if tensor else []
        )
        return NotFinite(
            f"{where}, row {row}: {'; '.join(what)}",
            hint=f"lower learning_rate, or look at line {self._feed.line(row)} of the dataset; "
            "the last checkpoint is whole",
        )

    def _first_bad_tensor(self) -> str | None:
        for name, largest in zip(self._layout.names, self._passes.maxima(), strict=True):
            if not math.isfinite(largest):
                return name
        return None


def held_out(feed: Feed, passes: SlicePass, rows: Sequence[int]) -> NotFinite:
    """The error for a slice of held-out rows whose loss is not finite; names the first such row."""
    for row in rows:
        loss = passes.evaluate([feed[row]]).loss
        if not math.isfinite(loss):
            return NotFinite(
                f"held-out row {row}: the loss is {loss}",
                hint=f"lower learning_rate, or look at line {feed.line(row)} of the held-out "
                "rows' file; the last checkpoint is whole",
            )
    return NotFinite(
        f"held-out rows {', '.join(map(str, rows))}: their loss is not finite, "
        "though each row's alone is",
        hint="lower learning_rate, or use precision fp32; the last checkpoint is whole",
    )
