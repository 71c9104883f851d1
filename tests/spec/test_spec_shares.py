"""Shares: every slice has one rank, speed decides how many, and everybody plans alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.spec.shares import Speeds, assign

costs = st.lists(st.integers(1, 600), max_size=40)
speeds = st.lists(st.floats(0.01, 1e6), min_size=1, max_size=8)


@given(costs, speeds)
def test_every_slice_has_one_rank(cost: list[int], speed: list[float]) -> None:
    shares = assign(cost, speed)
    assert len(shares) == len(speed)
    assert sorted(index for share in shares for index in share) == list(range(len(cost)))


@given(costs, speeds)
def test_nobody_finishes_later_than_the_fastest_alone_would(
    cost: list[int], speed: list[float]
) -> None:
    shares = assign(cost, speed)
    finish = max(
        sum(cost[i] for i in share) / rate for share, rate in zip(shares, speed, strict=True)
    )
    assert finish <= sum(cost) / max(speed) * (1 + 1e-9)


def test_a_machine_four_times_faster_gets_four_times_as_much() -> None:
    shares = assign([100] * 20, [4.0, 1.0])
    assert [len(share) for share in shares] == [16, 4]


def test_a_speed_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        assign([1], [1.0, 0.0])


def test_speeds_follow_what_was_measured_and_forget_slowly() -> None:
    known = Speeds(3)
    assert known() == [1.0, 1.0, 1.0]
    known.update([400, 100, 0], [10**9, 10**9, 0])
    assert known() == [400.0, 100.0, 250.0]
    known.update([100, 100, 50], [10**9, 10**9, 10**9])
    assert known() == pytest.approx([310.0, 100.0, 50.0])
