"""Whether a job goes on: no job ends for nothing, and none goes on for ever."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.coordinator.leading.continuing import (
    LONGEST_PAUSE,
    RESTARTS,
    WITHOUT_PROGRESS,
    Decision,
    Failures,
    decide,
    failure_of,
)
from llamaforge.coordinator.leading.outcome import Outcome, Setback
from llamaforge.spec.job import OnNodeLoss
from llamaforge.spec.states import FailureClass, JobState

LEFT = Outcome(state=None, reason="b left", setback=Setback.GAVE_WAY)
LOST = Outcome(state=JobState.FAILED, reason="node b is lost", hint="look", setback=Setback.LOST)
DONE = Outcome(state=JobState.DONE, reason="finished", proof={"steps": 3})
MISTAKE = Outcome(state=JobState.FAILED, reason="row 7 is empty", user_error=True)
LOSSES = RESTARTS[FailureClass.NODE_LOST]


def error(said: str) -> Outcome:
    return Outcome(
        state=JobState.FAILED, reason=f"rank 1 on b {said}", said=said, setback=Setback.ERROR
    )


def failed(failure: FailureClass, node: str = "b", *, full_disk: bool = False) -> Outcome:
    return Outcome(
        state=JobState.FAILED,
        reason=f"node {node}: {failure.value}",
        setback=Setback.ERROR,
        failure=failure,
        node=node,
        full_disk=full_disk,
    )


class Told:
    """A job that is told outcomes one after the other."""

    def __init__(self, policy: OnNodeLoss = "continue", max_restarts: int | None = None) -> None:
        self.failures = Failures()
        self.policy = policy
        self.max_restarts = max_restarts
        self.last: Decision | None = None
        self.pauses: list[float] = []

    def hear(self, outcome: Outcome, step: int, stop: str = "") -> Outcome:
        decision = self.last = decide(
            self.failures,
            outcome,
            step=step,
            stop_reason=stop,
            policy=self.policy,
            max_restarts=self.max_restarts,
        )
        kept = msgspec.json.encode(decision.failures)  # as the ledger keeps it
        self.failures = msgspec.json.decode(kept, type=Failures)
        assert self.failures == decision.failures
        self.pauses.append(decision.pause)
        return decision.outcome

    def tries(self, outcome: Outcome, step: int = 7) -> int:
        """How often it goes on after the same outcome."""
        for number in range(100):
            if self.hear(outcome, step).state is not None:
                return number
        raise AssertionError("it goes on for ever")


@pytest.mark.parametrize("final", [DONE, MISTAKE])
def test_what_is_final_stays_final(final: Outcome) -> None:
    assert Told().hear(final, 3) == final


def test_leaving_never_counts() -> None:
    job = Told()
    assert all(job.hear(LEFT, 0).state is None for _ in range(50))
    assert job.failures == Failures()
    assert set(job.pauses) == {0.0}


def test_losses_without_progress_end_the_job_and_say_so() -> None:
    job = Told()
    for _ in range(LOSSES):
        assert job.hear(LOST, 7).state is None
    end = job.hear(LOST, 6)
    assert end.state is JobState.FAILED
    assert end.reason == "node b is lost"
    times = f"{LOSSES + 1} times without getting past step 7 (node lost: {LOSSES + 1})"
    assert end.hint == f"look; it failed {times}"


def test_getting_further_forgives() -> None:
    job = Told()
    assert all(job.hear(LOST, step).state is None for step in range(0, 100, 2))
    assert set(job.pauses) == {0.0}


@pytest.mark.parametrize("failure", FailureClass)
def test_each_class_has_its_own_budget(failure: FailureClass) -> None:
    assert Told().tries(failed(failure)) == RESTARTS[failure]


def test_classes_together_are_capped() -> None:
    job = Told()
    classes = [FailureClass.NODE_LOST] * 5 + [FailureClass.HANG] * 2 + [FailureClass.ENVIRONMENT]
    assert len(classes) == WITHOUT_PROGRESS
    assert all(job.hear(failed(failure), 1).state is None for failure in classes)
    end = job.hear(failed(FailureClass.MEMORY), 1)
    assert end.state is JobState.FAILED
    words = "node lost: 5, hang: 2, environment: 1, out of memory: 1"
    assert end.hint == f"it failed 9 times without getting past step 1 ({words})"


def test_pauses_grow_from_none_and_end_with_progress() -> None:
    job = Told()
    job.tries(LOST)
    assert job.pauses[:5] == [0.0, 0.5, 1.0, 2.0, 4.0]
    assert job.pauses == [*sorted(job.pauses[:-1]), 0.0]  # the last one is the job's end
    job.hear(LOST, 8)
    assert job.pauses[-1] == 0.0


def test_a_machine_that_fails_twice_is_avoided_for_good() -> None:
    job = Told()
    job.hear(failed(FailureClass.ENVIRONMENT, "b"), 4)
    assert job.last is not None
    assert job.last.avoid == frozenset()
    job.hear(failed(FailureClass.ENVIRONMENT, "b"), 4)
    assert job.last.avoid == {"b"}
    job.hear(LOST, 9)
    assert job.last.avoid == {"b"}
    job.hear(failed(FailureClass.ENVIRONMENT, "c"), 9)
    assert job.last.avoid == {"b"}


def test_a_full_disk_is_waited_for() -> None:
    job = Told("fail")
    full = failed(FailureClass.ENVIRONMENT, full_disk=True)
    for _ in range(40):
        verdict = job.hear(full, 3)
        assert verdict.state is None
        assert verdict.full_disk
    assert job.failures.count == 0
    assert (job.pauses[0], job.pauses[-1]) == (5.0, LONGEST_PAUSE)


@pytest.mark.parametrize("wanted", [0, 1, 5, 20])
def test_a_script_is_started_again_as_often_as_was_asked_for(wanted: int) -> None:
    said = Outcome(
        state=JobState.FAILED,
        reason="rank 0 on a ended with exit code 1",
        said="ended with exit code 1",
        setback=Setback.ERROR,
        failure=FailureClass.ERROR,
    )
    assert Told(max_restarts=wanted).tries(said, step=0) == wanted
    assert Told(max_restarts=wanted).tries(LOST, step=0) == LOSSES


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
    assert job.hear(error("failed: E: other"), 9).state is None
    assert job.hear(error("failed: E: third"), 9).state is JobState.FAILED  # the fourth


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


OUTCOMES = st.one_of(
    st.just(LEFT),
    st.just(LOST),
    st.sampled_from("abc").map(error),
    st.just(DONE),
    st.builds(failed, st.sampled_from(FailureClass), st.sampled_from("ab")),
)


@given(st.lists(st.tuples(OUTCOMES, st.integers(0, 30)), max_size=60))
def test_failures_are_bounded_by_progress(events: list[tuple[Outcome, int]]) -> None:
    """A job never fails more often in a row at one step than its budgets say, and goes on."""
    job, furthest, in_a_row = Told(), -1, 0
    for outcome, step in events:
        verdict = job.hear(outcome, step)
        if outcome is not LEFT and outcome is not DONE:
            in_a_row = 1 if step > furthest else in_a_row + 1
            furthest = max(furthest, step)
        if verdict.state is not None:
            assert verdict.state is outcome.state
            assert outcome is DONE or in_a_row > 1 or not RESTARTS[failure_of(outcome)]
            return
        assert in_a_row <= WITHOUT_PROGRESS
        assert verdict.reason == outcome.reason
        assert 0.0 <= job.pauses[-1] <= LONGEST_PAUSE
        assert job.pauses[-1] == 0.0 or in_a_row > 1
