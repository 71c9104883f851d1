"""A job that stands still is noticed in time, one that goes on is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.coordinator.leading.hang import FIRST, LEAST, TIMES, Pace, first_stopped, report
from llamaforge.wire.messages import RankStack


def stack(
    rank: int, *, state: str = "S", waits: bool = True, idle: float = 12.0, phase: str = ""
) -> RankStack:
    return RankStack(rank=rank, state=state, waits=waits, idle=idle, phase=phase, step=6)


def steady(seconds: float, steps: int) -> tuple[Pace, float]:
    """A job with steps of so many seconds, and the time of the last one."""
    pace = Pace(100.0)
    now = 130.0
    for step in range(steps + 1):
        pace.saw(now + seconds * step, step)
    return pace, now + seconds * steps


def test_the_first_step_may_take_long() -> None:
    pace = Pace(100.0)
    assert not pace.overdue(100.0 + FIRST - 1)
    assert pace.overdue(100.0 + FIRST)
    pace.saw(200.0, 0)  # ranks have met
    assert pace.deadline == 200.0 + FIRST


@pytest.mark.parametrize("seconds", [0.05, 0.5, 1.0])
def test_short_steps_are_missed_after_ten_seconds(seconds: float) -> None:
    pace, last = steady(seconds, 20)
    assert pace.limit == pytest.approx(max(LEAST, TIMES * seconds))
    assert not pace.overdue(last + LEAST - 0.01)
    assert pace.overdue(last + LEAST)


def test_steps_of_seconds_are_missed_within_tens_of_seconds() -> None:
    pace, last = steady(3.0, 20)
    assert 10 < pace.deadline - last <= 30


def test_few_steps_are_trusted_less() -> None:
    assert steady(1.0, 2)[0].limit == 2 * LEAST
    assert steady(1.0, 20)[0].limit == LEAST


def test_silences_that_had_an_end_are_learnt() -> None:
    """An evaluation that nobody told of, heard of by no beat: the next one is waited for."""
    pace, last = steady(1.0, 20)
    pace.saw(last + 9.0, 21)
    for number in range(100):
        pace.saw(last + 10.0 + number, 22 + number)
    assert pace.limit == pytest.approx(27.0)


def test_signs_of_life_within_a_step_count() -> None:
    pace, last = steady(1.0, 20)
    for second in range(1, 200):
        assert not pace.overdue(last + second)
        pace.saw(last + second, 20)
    assert pace.limit == LEAST


def test_what_was_granted_ends_with_the_next_sign_of_life() -> None:
    pace, last = steady(1.0, 20)
    pace.grant(300.0)
    assert not pace.overdue(last + 299)
    pace.saw(last + 250, 21)
    assert pace.limit < 1000
    assert pace.deadline < last + 250 + 751


def test_a_time_in_which_nothing_could_be_heard_does_not_count() -> None:
    pace, last = steady(1.0, 20)
    pace.restart(last + 500)
    assert pace.deadline == last + 500 + LEAST
    pace.restart(0.0)
    assert pace.deadline == last + 500 + LEAST


def test_a_job_that_goes_on_from_a_checkpoint_has_not_made_its_steps_just_now() -> None:
    pace = Pace(0.0)
    pace.saw(30.0, 500)
    assert pace.usual is None
    pace.saw(34.0, 501)
    assert pace.usual == pytest.approx(4.0)


SIGHTINGS = st.lists(st.tuples(st.floats(0.0, 1e4), st.integers(0, 10_000)), max_size=50)


@given(st.floats(0, 1e6), SIGHTINGS)
def test_no_sighting_makes_it_overdue_at_once(start: float, seen: list[tuple[float, int]]) -> None:
    pace, now = Pace(start), start
    for seconds, step in seen:
        now += seconds
        pace.saw(now, step)
        assert pace.limit >= LEAST
        assert not pace.overdue(now + LEAST * 0.99)
        assert pace.overdue(pace.deadline)


@given(st.floats(0.01, 100.0), st.integers(6, 60))
def test_a_steady_job_is_never_overdue_and_a_stopped_one_soon(seconds: float, steps: int) -> None:
    pace, last = steady(seconds, steps)
    assert not pace.overdue(last + seconds * 2)
    assert pace.deadline <= last + max(LEAST, TIMES * seconds) + 1e-3


# ── which one ─────────────────────────────────────────────────────────────────────────────────


def test_a_stopped_process_comes_first() -> None:
    found = first_stopped([stack(0), stack(1, waits=False, idle=60), stack(2, state="T", idle=1)])
    assert found[0] == 2
    assert "SIGSTOP" in found[1]


def test_then_the_one_that_waits_for_nobody() -> None:
    rank, why = first_stopped([stack(0, idle=30), stack(3, waits=False, phase="slice"), stack(4)])
    assert rank == 3
    assert why == "it waits for no other rank and has done nothing for 12 s (slice, step 7)"


def test_then_the_longest_idle() -> None:
    rank, why = first_stopped([stack(0, idle=3), stack(1, idle=9), stack(2, idle=4)])
    assert (rank, "idle for 9 s" in why) == (1, True)


def test_a_node_that_says_nothing_is_suspected_before_those_that_wait() -> None:
    assert first_stopped([stack(0), stack(1)], mute=[3, 2])[0] == 2
    assert first_stopped([], mute=[3])[0] == 3
    assert first_stopped([stack(0, state="Z")], mute=[3])[0] == 0
    with pytest.raises(ValueError, match="no rank"):
        first_stopped([])


STACKS = st.lists(
    st.builds(
        stack,
        st.integers(0, 20),
        state=st.sampled_from("RSDTZ"),
        waits=st.booleans(),
        idle=st.floats(0, 100),
    ),
    min_size=1,
    unique_by=lambda one: one.rank,
)


@given(STACKS, st.randoms())
def test_the_choice_does_not_depend_on_order(stacks: list[RankStack], random: object) -> None:
    chosen = first_stopped(stacks)
    by_rank = {one.rank: one for one in stacks}
    random.shuffle(stacks)  # type: ignore[attr-defined]
    assert first_stopped(stacks) == chosen
    halted = {one.rank for one in stacks if one.state in "TZ"}
    working = {one.rank for one in stacks if not one.waits}
    assert chosen[0] in (halted or working or set(by_rank))
    assert chosen[1]


def test_the_text_that_is_kept() -> None:
    ranks = [stack(1, waits=False), stack(0)]
    text = report(ranks, ["a", "b"], chosen=1, why="it sleeps")
    assert text.startswith("rank 1 on b stopped first: it sleeps\n")
    assert text.index("rank 0 on a") < text.index("── rank 1 on b")
