"""The tally sums up a job's stream: shares, rates and the time left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.updates import ended, step, stream
from llamaforge.cli.tally import WINDOW, Tally
from llamaforge.spec.states import JobState
from llamaforge.wire.updates import GenerationStarted, MetricLine


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_whole_stream_is_summed_up() -> None:
    tally = Tally(4, clock=Clock())
    for update in stream("runs/x"):
        tally.take(update)
    assert (tally.step, tally.state) == (4, JobState.DONE)
    assert tally.loss == pytest.approx(0.75)
    assert tally.shares == {"big": 0.75, "small": 0.25}
    assert tally.heldout == (2.5, 1.25)
    assert tally.mean_tokens_per_second == pytest.approx(200)
    assert [node.node for node in tally.nodes] == ["big", "small"]
    note = tally.note("guarantee")
    assert note is not None
    assert note.text == "guarantee: same numbers"
    assert tally.note("nothing") is None


def test_nothing_is_known_before_the_first_step() -> None:
    tally = Tally(10)
    assert (tally.loss, tally.seconds_left, tally.shares, tally.heldout) == (
        None,
        None,
        {},
        (None, None),
    )
    assert tally.mean_tokens_per_second is None


def test_time_left_follows_the_last_steps() -> None:
    clock = Clock()
    tally = Tally(1000, first_step=500, clock=clock)
    for number in range(501, 501 + WINDOW):
        clock.now += 100.0
        tally.take(step(number))
    for number in range(501 + WINDOW, 502 + 2 * WINDOW):
        clock.now += 2.0
        tally.take(step(number))
    assert tally.seconds_left == pytest.approx(2.0 * (1000 - tally.step))


@given(st.lists(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 50)), max_size=20))
def test_shares_add_up_to_one(lines: list[dict[str, int]]) -> None:
    tally = Tally(100)
    for number, shares in enumerate(lines, start=1):
        tally.take(step(number, shares=shares))
    total = sum(sum(shares.values()) for shares in lines)
    assert sum(tally.shares.values()) == pytest.approx(1 if total else 0)


def test_a_repeated_step_gives_no_division_by_zero() -> None:
    tally = Tally(10, clock=Clock())
    tally.take(step(1))
    tally.take(step(1))
    assert tally.seconds_left is None


def test_a_generation_that_goes_back_takes_the_tally_with_it() -> None:
    tally = Tally(100, clock=Clock())
    evaluated = {"heldout_loss": 2.0, "seconds": 1.0}
    tally.take(MetricLine(line={"step": 0, **evaluated}))
    for number in range(1, 9):
        tally.take(step(number))
    tally.take(MetricLine(line={"step": 8, **evaluated}))
    tally.take(GenerationStarted(generation=2, world_size=1, nodes=(), after=5))
    assert (tally.step, tally.generation, tally.seconds_left) == (5, 2, None)
    assert [line["step"] for line in tally.evaluations] == [0]
    tally.take(step(6))
    assert tally.step == 6


def test_the_end_is_kept() -> None:
    tally = Tally(10)
    tally.take(ended("runs/x", JobState.FAILED, reason="rank 1 died"))
    assert tally.ended is not None
    assert tally.ended.reason == "rank 1 died"
