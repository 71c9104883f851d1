"""A rank may write a burst, then a steady stream."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llamaforge.worker.line_pace import LinePace


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@given(st.lists(st.integers(0, 500), min_size=1, max_size=60))
async def test_never_more_than_burst_and_stream(chunks: list[int]) -> None:
    clock = Clock()
    pace = LinePace(1000, 100.0, clock=clock, sleep=clock.sleep)
    for chunk in chunks:
        await pace.take(chunk)
    total = sum(chunks)
    assert abs(clock.now - max(0.0, (total - 1000) / 100.0)) < 1e-6


async def test_time_gives_allowance_back() -> None:
    clock = Clock()
    pace = LinePace(10, 1.0, clock=clock, sleep=clock.sleep)
    await pace.take(10)
    clock.now += 5
    await pace.take(5)
    assert clock.now == 5
    await pace.take(1)
    assert clock.now == 6
