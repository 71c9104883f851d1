"""Learning rates: the textbook curves, without the C library's cosine."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.spec.schedule import learning_rate


def rates(kind: str, total: int = 100, warmup: float = 0.1) -> list[float]:
    return [
        learning_rate(step, total=total, peak=2.0, kind=kind, warmup=warmup)  # type: ignore[arg-type]
        for step in range(total)
    ]


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
def test_warm_up_is_a_line_to_the_peak(kind: str) -> None:
    assert rates(kind)[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])


@given(st.integers(1, 5000), st.floats(0, 0.9))
def test_cosine_is_the_mathematical_one(total: int, warmup: float) -> None:
    warm = round(warmup * total)
    for step in range(warm, total, max(1, total // 17)):
        expected = 1 + math.cos(math.pi * (step - warm) / max(1, total - warm))
        got = learning_rate(step, total=total, peak=2.0, kind="cosine", warmup=warmup)
        assert got == pytest.approx(expected, abs=1e-14)


def test_linear_falls_evenly_and_constant_stays() -> None:
    linear, constant = rates("linear", warmup=0.0), rates("constant", warmup=0.0)
    assert linear == pytest.approx([2.0 * (1 - i / 100) for i in range(100)])
    assert constant == [2.0] * 100


def test_values_are_the_same_for_ever() -> None:
    """To the last bit: a machine that computes another rate gets other weights."""
    assert [rate.hex() for rate in rates("cosine")[30:33]] == EXPECTED


EXPECTED = ["0x1.c41b7d167a81dp+0", "0x1.be3ebd419df61p+0", "0x1.b826a7352a69cp+0"]
