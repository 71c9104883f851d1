"""The update, to the bit: the same operations written once more in numpy give the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jobs import make_job
from llamaforge.train.exact.adamw import AdamW, clipping
from llamaforge.train.exact.layout import Layout

SHAPES = [(300, 1000), (5,), (64, 3)]
SCALES = [12, None, 20]


def reference(
    weights: np.ndarray, totals: list[np.ndarray], rates: list[float], divisor: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AdamW as its docstring says it, one IEEE single-precision operation at a time."""
    f = np.float32
    sizes = [int(np.prod(s)) for s in SHAPES]
    values = [f(0) if s is None else f(2.0**-s * (1 / divisor)) for s in SCALES]
    factor = np.repeat(np.array(values, dtype=f), sizes)
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    b1, b2, eps, decay = 0.9, 0.999, 1e-8, 0.1
    power1 = power2 = 1.0
    for total, rate in zip(totals, rates, strict=True):
        power1, power2 = power1 * b1, power2 * b2
        gradient = total.astype(f) * factor
        first = first * f(b1) + gradient * f(1 - b1)
        second = second * f(b2) + (gradient * gradient) * f(1 - b2)
        bottom = np.sqrt(second) * f(1 / np.sqrt(1 - power2)) + f(eps)
        weights = weights * f(1 - rate * decay) - (first * f(rate / (1 - power1))) / bottom
    return weights, first, second


@pytest.mark.parametrize("threads", [1, 2])
def test_every_bit_is_as_specified(threads: int) -> None:
    layout = Layout([(f"t{i}", torch.nn.Parameter(torch.zeros(s))) for i, s in enumerate(SHAPES)])
    generator = torch.Generator().manual_seed(0)
    master = torch.randn(layout.total, generator=generator)
    totals = [
        torch.randint(-(2**24), 2**24, (layout.total,), generator=generator).to(torch.int32)
        for _ in range(7)
    ]
    rates = [1e-3 * (i + 1) for i in range(7)]
    expected = reference(master.numpy().copy(), [t.numpy() for t in totals], rates, 37.0)
    optimizer = AdamW(layout, master, make_job(weight_decay=0.1).spec)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for total, rate in zip(totals, rates, strict=True):
            optimizer.step(total, SCALES, divisor=37.0, rate=rate)
    finally:
        torch.set_num_threads(before)
    got = (optimizer.master, optimizer.moments.first, optimizer.moments.second)
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.numpy().tobytes() == theirs.tobytes()


def test_it_is_adamw() -> None:
    """Against PyTorch's own AdamW, to rounding."""
    layout = Layout([("w", torch.nn.Parameter(torch.zeros(50)))])
    generator = torch.Generator().manual_seed(1)
    master = torch.randn(50, generator=generator)
    theirs = torch.nn.Parameter(master.clone())
    peer = torch.optim.AdamW([theirs], lr=1e-2, weight_decay=0.1)
    ours = AdamW(layout, master, make_job(weight_decay=0.1).spec)
    for _ in range(20):
        total = torch.randint(-(2**20), 2**20, (50,), generator=generator).to(torch.int32)
        ours.step(total, [18], divisor=4.0, rate=1e-2)
        theirs.grad = total.float() * 2.0**-18 / 4.0
        peer.step()
    torch.testing.assert_close(ours.master, theirs.data, rtol=1e-5, atol=1e-6)


def test_clipping() -> None:
    assert clipping(0.5, 1.0) == 1.0
    assert clipping(4.0, 1.0) == 0.25
    assert clipping(4.0, 0.0) == 1.0, "0 never clips"
