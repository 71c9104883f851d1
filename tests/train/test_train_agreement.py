"""Ranks that have parted are named; ranks that agree go on."""

from __future__ import annotations

import pytest

from llamaforge.errors import IntegrityError
from llamaforge.train import agreement
from llamaforge.train.group import Group


def test_weights_are_compared_at_a_generations_start_and_now_and_then() -> None:
    compared = [step for step in range(17, 160) if agreement.due(step, first=17)]
    assert compared == [17, 50, 100, 150]


def test_a_word_is_63_bits_of_the_digest() -> None:
    assert agreement.word(b"\xff" * 32) == 2**63 - 1
    assert agreement.word(bytes(8) + b"\xff" * 24) == 0


def test_whoever_differs_from_rank_0_is_named() -> None:
    agreement.check([7, 7], ["a", "b"], what="before step 1 the weights")
    with pytest.raises(IntegrityError) as caught:
        agreement.check([7, 8, 7, 9], list("abcd"), what="before step 51 the weights")
    assert caught.value.message == (
        "before step 51 the weights of rank 1 on b, rank 3 on d differ from rank 0's"
    )


def test_one_rank_agrees_with_itself() -> None:
    agreement.check_end(Group.alone(), ["ab" * 32, "cd" * 32], ["a"])
