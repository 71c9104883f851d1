"""Which promise a job runs under: measured with a canary slice, never inferred from names."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch

from llamaforge.train.exact import digest
from llamaforge.train.group import Group
from llamaforge.train.rows.tokens import Tokens
from llamaforge.train.slice_pass import SlicePass


class Promise(str, Enum):
    """What holds whatever joins, dies or restarts."""

    SAME_NUMBERS = "same numbers"
    """The final state has the same SHA-256 as an undisturbed run on one machine."""
    SAME_ROWS = "same rows"
    """Every row once per epoch in the same order, with the same schedule."""


@dataclass(frozen=True)
class Guarantee:
    """The promise and the reason for it."""

    promise: Promise
    why: str
    canary: str
    """SHA-256 of the canary slice's gradient as rank 0 computed it."""


def measure(
    group: Group, passes: SlicePass, rows: Sequence[Tokens], nodes: Sequence[str]
) -> Guarantee:
    """Every rank computes the same slice; equal digests mean equal kernels.

    Args:
        group: the ranks.
        passes: how a slice goes through the model, which has its first weights.
        rows: the canary slice, the same on every rank and in every generation.
        nodes: node name of each rank, for the reason.
    """
    passes.train(rows, seed=(0, -1, -1))
    mine = digest.of_vector(passes.gradient)
    seen = group.gather(torch.tensor(struct.unpack("<4q", mine), dtype=torch.int64)).tolist()
    odd = [rank for rank, other in enumerate(seen) if other != seen[0]]
    if not odd:
        agree = f"all {len(seen)} ranks agree on a canary slice ({mine.hex()[:12]})"
        why = agree if len(seen) > 1 else "one rank computes everything"
        return Guarantee(Promise.SAME_NUMBERS, why, mine.hex())
    canary = struct.pack("<4q", *seen[0]).hex()
    names = ", ".join(f"rank {rank} on {nodes[rank]}" for rank in odd)
    why = f"{names} computed the canary slice to other bits than {nodes[0]}"
    return Guarantee(Promise.SAME_ROWS, why, canary)


def over_all(now: Guarantee, past: Sequence[Mapping[str, Any]]) -> Guarantee:
    """The promise that a job can still make after the generations before this one.

    Args:
        now: what this generation measured.
        past: the earlier generations, as a checkpoint keeps them.
    """
    for earlier in past:
        which = f"generation {earlier['generation']}"
        if earlier["guarantee"] == Promise.SAME_ROWS.value:
            return Guarantee(Promise.SAME_ROWS, f"in {which}, {earlier['why']}", now.canary)
        if earlier["canary"] != now.canary:
            why = f"{which} computed the canary slice to other bits than this one"
            return Guarantee(Promise.SAME_ROWS, why, now.canary)
    return now
