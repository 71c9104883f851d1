"""Checks that a model keeps the rows of a slice apart, instead of trusting its name.

Most decoders let transformers choose their attention function and take positions as an argument;
then rows can go through the model together. One that does not (recurrent state, attention of its
own) would leak one row into the next. So it is tried: other tokens in the first row must not
change a bit of the second row's logits. A model that fails gets its rows one at a time, which is
slower and exact.
"""

from __future__ import annotations

import numpy as np
import torch

from llamaforge.train.rows.tokens import Tokens
from llamaforge.train.slice_pass import SlicePass

_LENGTH = 24


@torch.no_grad()
def rows_stay_apart(passes: SlicePass, vocabulary: int) -> bool:
    """Whether two rows can go through the model together.

    Args:
        passes: how slices go through the model.
        vocabulary: number of token ids.
    """
    random = np.random.default_rng(0)
    first, other, second = (
        Tokens(
            ids=random.integers(0, vocabulary, _LENGTH).astype(np.int32),
            trained=np.ones(_LENGTH, dtype=bool),
            truncated=False,
        )
        for _ in range(3)
    )
    keep = torch.arange(_LENGTH, 2 * _LENGTH)
    try:
        seen = [passes.logits([before, second], keep) for before in (first, other)]
    except NotImplementedError:
        return False
    return torch.equal(seen[0], seen[1])
