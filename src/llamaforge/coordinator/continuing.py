"""Whether a job goes on after a generation has ended: a decision without I/O.

A worker that leaves costs a generation change and nothing else. What was lost, or failed, may be
gone the next time, so the job is tried again from its newest checkpoint; a job that fails again
and again without getting any further is not, and neither is one that fails in the same words.
"""

from __future__ import annotations

import msgspec

from llamaforge.coordinator.outcome import RESUME_HINT, Outcome, Setback
from llamaforge.spec.job import OnNodeLoss
from llamaforge.spec.states import JobState

RESTARTS = 3
"""How often a job is tried again while no generation gets past the step of the last failure."""


class Failures(msgspec.Struct, frozen=True, kw_only=True):
    """What has gone wrong in a job since it last got further."""

    count: int = 0
    """Generations that failed and came no further than the one before."""
    step: int = -1
    """The furthest committed step at which one failed."""
    said: str = ""
    """What the last one failed with, where it said so itself."""


def decide(
    before: Failures, outcome: Outcome, *, step: int, stop_reason: str, policy: OnNodeLoss
) -> tuple[Outcome, Failures]:
    """What becomes of a job.

    Args:
        before: what went wrong earlier.
        outcome: how the generation ended.
        step: the last step that it committed.
        stop_reason: why somebody asked the job to stop; empty when nobody did.
        policy: whether the job may go on without a node or a rank that was lost.

    Returns:
        The job's end, or an outcome without a state when it goes on; and what went wrong so far.
    """
    if outcome.state is not None and outcome.setback is None:
        return outcome, before
    if stop_reason:
        return _stopped(outcome, stop_reason), before
    if outcome.setback in (None, Setback.GAVE_WAY):
        return _going_on(outcome), before
    if policy == "fail":
        return outcome, before
    after = _counted(before, outcome, step)
    if _same_again(before, outcome, step):
        return _told(outcome, "it failed twice with the same error"), after
    if after.count > RESTARTS:
        times = f"it failed {after.count} times without getting past step {after.step}"
        return _told(outcome, times), after
    return _going_on(outcome), after


def _counted(before: Failures, outcome: Outcome, step: int) -> Failures:
    further = step > before.step
    return Failures(
        count=1 if further else before.count + 1,
        step=max(step, before.step),
        said=_own_words(outcome),
    )


def _own_words(outcome: Outcome) -> str:
    """What a rank failed with; "" for a loss, whose words say nothing of the job."""
    return outcome.said if outcome.setback is Setback.ERROR else ""


def _same_again(before: Failures, outcome: Outcome, step: int) -> bool:
    """The same words at the same step; a report and the last metric line may cross by one."""
    says = _own_words(outcome)
    return bool(says) and says == before.said and step <= before.step + 1


def _going_on(outcome: Outcome) -> Outcome:
    return msgspec.structs.replace(outcome, state=None)


def _stopped(outcome: Outcome, stop_reason: str) -> Outcome:
    """Somebody wanted the end anyway; a failure on the way to it is still told as one."""
    if outcome.state is JobState.FAILED:
        return outcome
    return Outcome(
        state=JobState.STOPPED,
        reason=f"{stop_reason}; ended without a new checkpoint",
        hint=RESUME_HINT,
        proof=outcome.proof,
    )


def _told(outcome: Outcome, why: str) -> Outcome:
    return msgspec.structs.replace(outcome, hint=f"{outcome.hint}; {why}" if outcome.hint else why)
