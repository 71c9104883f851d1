"""The order of rows: every row exactly once per epoch, in an order that depends on the seed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.spec.order import Permutation


@given(n=st.integers(1, 3000), seed=st.integers(0, 2**53), epoch=st.integers(0, 100))
def test_every_row_once(n: int, seed: int, epoch: int) -> None:
    assert sorted(Permutation(n, seed=seed, epoch=epoch)) == list(range(n))


@given(
    n=st.integers(1, 2**40),
    seed=st.integers(0, 2**53),
    positions=st.sets(st.integers(0, 2**40 - 1), min_size=2, max_size=20),
)
def test_huge_sets_map_into_themselves_without_collisions(
    n: int, seed: int, positions: set[int]
) -> None:
    order = Permutation(n, seed=seed, epoch=0)
    inside = {position % n for position in positions}
    values = {order[position] for position in inside}
    assert len(values) == len(inside)
    assert all(0 <= value < n for value in values)


def test_epochs_and_seeds_differ() -> None:
    orders = {tuple(Permutation(50, seed=s, epoch=e)) for s in range(4) for e in range(4)}
    assert len(orders) == 16


def test_the_order_is_the_same_for_ever() -> None:
    """A change of the order would break every resume: these values must never change."""
    assert list(Permutation(10, seed=0, epoch=0)) == [8, 5, 7, 2, 4, 3, 0, 9, 6, 1]
    assert list(Permutation(10, seed=0, epoch=1)) == [2, 9, 6, 1, 4, 0, 5, 7, 8, 3]


def test_positions_are_spread_evenly() -> None:
    """Where row 0 lands over many seeds: no tenth of the order is missed or crowded."""
    tenths = [0] * 10
    for seed in range(2000):
        tenths[list(Permutation(10, seed=seed, epoch=0)).index(0)] += 1
    assert min(tenths) > 140
    assert max(tenths) < 260


@pytest.mark.parametrize("position", [-1, 5, 6])
def test_outside_positions_are_refused(position: int) -> None:
    with pytest.raises(IndexError, match="outside"):
        Permutation(5, seed=0, epoch=0)[position]


def test_an_empty_order_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Permutation(0, seed=0, epoch=0)
