"""Whether a job goes on: no job ends for nothing, and none goes on for ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.coordinator.continuing import RESTARTS, Failures, decide
from llamaforge.coordinator.outcome import Outcome, Setback
from llamaforge.spec.job import OnNodeLoss
from llamaforge.spec.states import JobState

LEFT = Outcome(state=None, reason="b left", setback=Setback.GAVE_WAY)
LOST = Outcome(state=JobState.FAILED, reason="node b is lost", hint="look", setback=Setback.LOST)
DONE = Outcome(state=JobState.DONE, reason="finished", proof={"steps": 3})
MISTAKE = Outcome(state=JobState.FAILED, reason="row 7 is empty", user_error=True)


def error(said: str) -> Outcome:
    return Outcome(
        state=JobState.FAILED, reason=f"rank 1 on b {said}", said=said, setback=Setback.ERROR
    )


class Told:
    """A job that is told outcomes one after the other."""

    def __init__(self, policy: OnNodeLoss = "continue") -> None:
        self.failures = Failures()
        self.policy = policy

    def hear(self, outcome: Outcome, step: int, stop: str = "") -> Outcome:
        verdict, self.failures = decide(
            self.failures, outcome, step=step, stop_reason=stop, policy=self.policy
        )
        return verdict


@pytest.mark.parametrize("final", [DONE, MISTAKE])
def test_what_is_final_stays_final(final: Outcome) -> None:
    assert Told().hear(final, 3) == final


def test_leaving_never_counts() -> None:
    job = Told()
    assert all(job.hear(LEFT, 0).state is None for _ in range(50))
    assert job.failures == Failures()


def test_losses_without_progress_end_the_job_and_say_so() -> None:
    job = Told()
    for _ in range(RESTARTS):
        assert job.hear(LOST, 7).state is None
    end = job.hear(LOST, 6)
    assert end.state is JobState.FAILED
    assert end.reason == "node b is lost"
    assert end.hint == f"look; it failed {RESTARTS + 1} times without getting past step 7"


def test_getting_further_forgives() -> None:
    job = Told()
    assert all(job.hear(LOST, step).state is None for step in range(0, 100, 2))


def test_the_same_error_at_the_same_step_is_believed() -> None:
    job = Told()
    assert job.hear(error("failed: E: m"), 5).state is None
    end = job.hear(error("failed: E: m"), 6)  # the metric line and the report crossed
    assert end.state is JobState.FAILED
    assert "twice with the same error" in end.hint


def test_the_same_error_later_or_another_one_is_tried_again() -> None:
    job = Told()
    assert job.hear(error("failed: E: m"), 5).state is None
    assert job.hear(error("failed: E: m"), 9).state is None
    assert job.hear(error("failed: E: other"), 9).state is None
    assert job.hear(LOST, 9).state is None
    assert job.hear(error("failed: E: other"), 9).state is JobState.FAILED  # the fourth


def test_the_policy_can_forbid_going_on_after_a_loss_but_not_after_a_leave() -> None:
    job = Told("fail")
    assert job.hear(LEFT, 3).state is None
    assert job.hear(LOST, 3) == LOST


def test_a_stop_between_two_generations_is_a_stop() -> None:
    end = Told().hear(LEFT, 3, stop="enough")
    assert (end.state, end.reason) == (
        JobState.STOPPED,
        "enough; ended without a new checkpoint",
    )
    assert Told().hear(LOST, 3, stop="enough") == LOST  # whoever stops it should hear of it


OUTCOMES = st.one_of(st.just(LEFT), st.just(LOST), st.sampled_from("abc").map(error), st.just(DONE))


@given(st.lists(st.tuples(OUTCOMES, st.integers(0, 30)), max_size=60))
def test_failures_are_bounded_by_progress(events: list[tuple[Outcome, int]]) -> None:
    """A job never fails more than RESTARTS times in a row at one step and still goes on."""
    job, furthest, in_a_row = Told(), -1, 0
    for outcome, step in events:
        verdict = job.hear(outcome, step)
        if outcome is not LEFT and outcome is not DONE:
            in_a_row = 1 if step > furthest else in_a_row + 1
            furthest = max(furthest, step)
        if verdict.state is not None:
            assert verdict.state is outcome.state
            assert outcome is DONE or in_a_row > 1
            return
        assert in_a_row <= RESTARTS
        assert verdict.reason == outcome.reason
