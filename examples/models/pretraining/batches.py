"""From rows to tensors: tokens, labels and batches of rows of about the same length."""

import itertools
from collections.abc import Iterator, Mapping
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from .conversations import Example, draw_example
from .tokenizer import PAD

BATCH = 64  # rows
BUCKET = 16  # batches that are drawn together and sorted by length, to pad little
COPYING_BUCKETS = 12  # buckets at the start in which half of the rows are plain copying
IGNORED = -100


def encode(tokenizer: PreTrainedTokenizerFast, row: Example) -> tuple[list[int], list[int]]:
    """Return the tokens of a row and, of the same length, its labels (`IGNORED`: not trained)."""
    tokens: list[int] = []
    labels: list[int] = []
    for text, trained in row.pieces:
        ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        tokens += ids
        labels += ids if trained else [IGNORED] * len(ids)
    return tokens, labels


def pad(rows: list[tuple[list[int], list[int]]]) -> tuple[Tensor, Tensor]:
    """Return the tokens and labels of rows as two tensors `[rows, longest]`, padded on the right.

    Attention is causal, so padding on the right needs no mask. Lengths are rounded up because a
    CPU kernel is compiled anew for each new shape.
    """
    longest = rounded(max(len(tokens) for tokens, _ in rows), 8)
    tokens = [row + [PAD] * (longest - len(row)) for row, _ in rows]
    labels = [row + [IGNORED] * (longest - len(row)) for _, row in rows]
    return torch.tensor(tokens), torch.tensor(labels)


def rounded(count: int, multiple: int) -> int:
    """Round up to a multiple."""
    return -(-count // multiple) * multiple


def batches(
    tokenizer: PreTrainedTokenizerFast, rng: Random, practice: Mapping[str, float]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw batches without end; rows of about the same length share a batch.

    `practice` holds each family's weight, and may change between batches.
    """
    for number in itertools.count():
        copying = 0.5 if number < COPYING_BUCKETS else 0.05
        drawn = [draw_example(rng, practice, copying) for _ in range(BATCH * BUCKET)]
        rows = [encode(tokenizer, row) for row in drawn]
        rows.sort(key=lambda row: len(row[0]))
        starts = list(range(0, len(rows), BATCH))
        rng.shuffle(starts)
        for start in starts:
            yield pad(rows[start : start + BATCH])
