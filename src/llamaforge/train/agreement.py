"""Ranks whose state has parted must not go on: digests are compared now and then and at the end."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from llamaforge.errors import IntegrityError
from llamaforge.train.group import Group

EVERY = 50
"""Steps between comparisons."""


def due(step: int, *, first: int) -> bool:
    """Whether the weights are compared before step `step`; `first` is the generation's first."""
    return step == first or step % EVERY == 0


def word(digest: bytes) -> int:
    """63 bits of a digest: what fits into a ballot."""
    return int.from_bytes(digest[:8], "little") >> 1


def check(words: Sequence[int], nodes: Sequence[str], *, what: str) -> None:
    """Refuses words that differ from rank 0's.

    Args:
        words: of every rank, by rank.
        nodes: node of every rank, by rank.
        what: what was digested, such as "before step 51 the weights".

    Raises:
        IntegrityError: names the ranks that differ.
    """
    odd = [rank for rank, said in enumerate(words) if said != words[0]]
    if odd:
        who = ", ".join(f"rank {rank} on {nodes[rank]}" for rank in odd)
        raise IntegrityError(
            f"{what} of {who} differ from rank 0's",
            hint="continue from the last checkpoint with --auto-resume; if it happens again, "
            "test the memory of that machine",
        )


def check_end(group: Group, digests: Sequence[str], nodes: Sequence[str]) -> None:
    """Refuses a result that not all ranks have.

    Args:
        group: the ranks.
        digests: this rank's, in hexadecimal.
        nodes: node of every rank, by rank.

    Raises:
        IntegrityError: names the ranks that differ.
    """
    mine = [word(bytes.fromhex(digest)) for digest in digests]
    everybody = group.gather(torch.tensor(mine, dtype=torch.int64)).T.tolist()
    for words in everybody:
        check(words, nodes, what="at the end the weights or moments")
