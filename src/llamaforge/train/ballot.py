"""What ranks tell each other after computing their slices, before anything is summed.

One small int64 vector per rank and step. From everybody's vectors each rank draws the same
conclusions: whether the step overflowed, whether someone failed or wants to stop, and how fast
each rank is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch

from llamaforge.errors import LlamaForgeError
from llamaforge.train.group import Group, GroupBroken

_HEAD = 8


class PeerFailed(LlamaForgeError):
    """Another rank ended with an error; its own report says which."""


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """One rank's word about one step."""

    failed: bool = False
    """This rank can't go on; the others stop with it."""
    stop: bool = False
    """This rank was told to leave at the next step boundary."""
    kept_all: bool = True
    """False when slices without a scale did not fit into memory (see `train.exact.fixed`)."""
    loss: int = 0
    """Sum of its slices' losses in units of 2^-24."""
    trained: int = 0
    """Trained tokens in its slices."""
    tokens: int = 0
    """All tokens in its slices."""
    nanoseconds: int = 0
    """Time spent computing them, waiting excluded."""
    state: int = 0
    """First 63 bits of the digest of its weights, where this step compares them; else 0."""
    maxima: tuple[float, ...] = ()
    """Largest absolute slice value of each trained tensor; single precision, so exact."""

    def encode(self) -> torch.Tensor:
        """The ballot as int64 `[8 + tensors]`; a maximum travels as the bits of its float."""
        bits = struct.unpack(
            f"<{len(self.maxima)}I", struct.pack(f"<{len(self.maxima)}f", *self.maxima)
        )
        head = [self.failed, self.stop, self.kept_all, self.loss, self.trained]
        head += [self.tokens, self.nanoseconds, self.state]
        return torch.tensor([int(value) for value in (*head, *bits)], dtype=torch.int64)

    @classmethod
    def decode(cls, vector: list[int]) -> Ballot:
        """The inverse of `encode`."""
        count = len(vector) - _HEAD
        maxima = struct.unpack(f"<{count}f", struct.pack(f"<{count}I", *vector[_HEAD:]))
        failed, stop, kept_all, loss, trained, tokens, nanoseconds, state = vector[:_HEAD]
        return cls(
            failed=bool(failed),
            stop=bool(stop),
            kept_all=bool(kept_all),
            loss=loss,
            trained=trained,
            tokens=tokens,
            nanoseconds=nanoseconds,
            state=state,
            maxima=maxima,
        )


def cast(group: Group, ballot: Ballot) -> list[Ballot]:
    """Gives this rank's ballot and returns everybody's, by rank."""
    return [Ballot.decode(row) for row in group.gather(ballot.encode()).tolist()]


def agree(group: Group, compute: Callable[[], Ballot], *, tensors: int, where: str) -> list[Ballot]:
    """Computes this rank's ballot, casts it and returns everybody's.

    Args:
        group: the ranks.
        compute: does this rank's share of the work.
        tensors: how many maxima everybody's ballot holds.
        where: what is being computed, such as "step 3"; for the message.

    Raises:
        PeerFailed: another rank could not go on.
        Exception: whatever `compute` raised; the others have been told.
    """
    try:
        mine = compute()
    except Exception:
        with suppress(GroupBroken):  # a peer that is gone too must not hide what happened here
            cast(group, Ballot(failed=True, maxima=(0.0,) * tensors))
        raise
    votes = cast(group, mine)
    failed = [rank for rank, vote in enumerate(votes) if vote.failed]
    if failed:
        raise PeerFailed(f"rank {failed[0]} ended with an error in {where}")
    return votes


def largest(ballots: list[Ballot]) -> list[float]:
    """The maximum over all ranks, per tensor."""
    return [max(values) for values in zip(*(b.maxima for b in ballots), strict=True)]
