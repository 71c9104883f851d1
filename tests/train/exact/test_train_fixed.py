"""The integer sum: no order, no sharing of work and no late scale changes a bit of it."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llamaforge.train.exact.fixed import SliceSum, exponents, limit, overflows, squared_norm
from llamaforge.train.exact.layout import Layout

SHAPES = [(3, 5), (7,), (600, 500), (2, 2)]


def layout(shapes: list[tuple[int, ...]] = SHAPES) -> Layout:
    return Layout([(f"t{i}", torch.nn.Parameter(torch.zeros(s))) for i, s in enumerate(shapes)])


def gradients(count: int, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    where = layout()
    return [
        (torch.randn(where.total, generator=generator) * 10 ** -(i % 4)).to(dtype)
        for i in range(count)
    ]


def maxima(gradient: torch.Tensor, where: Layout) -> list[float]:
    return [view.abs().max().item() for view in where.views(gradient)]


def summed(parts: list[list[torch.Tensor]], scales: list[int | None], slices: int) -> torch.Tensor:
    """The sum over ranks, each adding its own part."""
    where = layout()
    ranks = []
    for part in parts:
        local = SliceSum(where)
        local.begin(scales, slices)
        for gradient in part:
            local.add(gradient, maxima(gradient, where))
        ranks.append(local)
    seen = [max(values) for values in zip(*(r.maxima for r in ranks), strict=True)]
    asked = exponents(seen, slices)
    final = [new if old is None else old for old, new in zip(scales, asked, strict=True)]
    for rank in ranks:
        rank.settle(final)
    return torch.stack([rank.total for rank in ranks]).sum(0, dtype=torch.int32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("calibrated", [True, False])
def test_any_order_and_any_sharing_give_the_same_integers(
    dtype: torch.dtype, calibrated: bool
) -> None:
    slices = gradients(6, dtype=dtype)
    scales = exponents([4.0] * 4, 6) if calibrated else [None] * 4
    expected = summed([slices], scales, 6)
    assert expected.abs().max() > 1000
    shuffled = random.Random(1)
    for cut in ([6], [1, 5], [2, 2, 2], [0, 6], [3, 1, 2]):
        order = slices.copy()
        shuffled.shuffle(order)
        edges = list(itertools.accumulate([0, *cut]))
        parts = [order[a:b] for a, b in itertools.pairwise(edges)]
        assert torch.equal(summed(parts, scales, 6), expected)


def test_fp32_sums_do_depend_on_order() -> None:
    """The reason for all this: were it not so, the integers would not be needed."""
    slices = gradients(6, dtype=torch.float32)
    forwards = sum(slices[1:], slices[0])
    backwards = sum(slices[-2::-1], slices[-1])
    assert not torch.equal(forwards, backwards)


def test_the_sum_is_the_gradient_to_a_millionth() -> None:
    where, slices = layout(), gradients(8)
    scales = exponents([max(maxima(g, where)[t] for g in slices) for t in range(4)], 8)
    total = summed([slices], scales, 8).double()
    exact = torch.stack([g.double() for g in slices]).sum(0)
    for got, want, scale in zip(where.views(total), where.views(exact), scales, strict=True):
        assert scale is not None
        error = (got * 2.0**-scale - want).abs().max() / want.abs().max()
        assert error < 8e-6


@given(st.floats(2.0**-66, 2.0**66, width=32), st.integers(1, 4096))
def test_a_scale_leaves_room_for_256_times_the_maximum(value: float, slices: int) -> None:
    (scale,) = exponents([value], slices)
    assert scale is not None
    assert math.ldexp(value, scale) * 256 <= limit(slices)
    assert not overflows([value * 255], [scale], slices)[0]


@given(st.floats(2.0**-66, 2.0**66, width=32), st.integers(1, 4096))
def test_a_scale_wastes_at_most_two_bits(value: float, slices: int) -> None:
    (scale,) = exponents([value], slices)
    assert scale is not None
    assert math.ldexp(value, scale) * 256 * 4 >= limit(slices)


def test_overflow_is_one_slice_above_the_limit_not_a_partial_sum() -> None:
    where = layout()
    scales = exponents([1.0] * 4, 4)
    edge = math.ldexp(float(limit(4)), -scales[0])  # type: ignore[operator]
    local = SliceSum(where)
    local.begin(scales, 4)
    for _ in range(4):
        gradient = torch.full((where.total,), edge * 0.99)
        local.add(gradient, maxima(gradient, where))
    assert not any(overflows(local.maxima, scales, 4))
    assert local.total.min() > 0, "four slices just under the limit must not wrap around"
    gradient = torch.full((where.total,), edge * 1.01)
    local.add(gradient, maxima(gradient, where))
    assert all(overflows(local.maxima, scales, 4))


def test_slices_without_a_scale_that_fill_memory_ask_for_another_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llamaforge.train.exact.fixed._KEEP_BYTES", 1000)
    local = SliceSum(layout())
    local.begin([None] * 4, 2)
    local.add(gradients(1)[0], [1.0] * 4)
    assert not local.kept_all
    local.begin(exponents(local.maxima, 2), 2)
    local.add(gradients(1)[0], [1.0] * 4)
    assert local.kept_all
    assert local.total.abs().max() > 0


def test_a_tensor_without_gradient_keeps_no_scale() -> None:
    assert exponents([0.0, 1.0], 3)[0] is None


@settings(max_examples=25)
@given(st.integers(0, 2**31 - 1), st.integers(0, 10**6))
def test_the_norm_is_right_at_any_magnitude(largest: int, seed: int) -> None:
    where = layout([(300,), (40, 30)])
    generator = torch.Generator().manual_seed(seed)
    total = torch.randint(-largest - 1, largest + 1, (where.total,), generator=generator)
    total = total.clamp(-(2**31) + 1, 2**31 - 1).to(torch.int32)
    exact = sum(int(v) ** 2 / 2 ** (2 * 7) for v in total[:300])
    exact += sum(int(v) ** 2 / 2 ** (2 * -3) for v in total[300:])
    assert squared_norm(total, where, [7, -3]) == pytest.approx(exact, rel=1e-9)


def test_the_norm_does_not_depend_on_the_order_within_a_tensor() -> None:
    where = layout([(700_000,)])
    generator = torch.Generator().manual_seed(3)
    total = torch.randint(-(2**30), 2**30, (where.total,), generator=generator).to(torch.int32)
    mixed = total[torch.randperm(where.total, generator=generator)]
    assert squared_norm(total, where, [20]) == squared_norm(mixed, where, [20])
