"""Whether a job goes on after a generation has ended: a decision without I/O.

A worker that leaves costs a generation change and nothing else. What was lost, or failed, may be
gone the next time, so the job is tried again from its newest checkpoint. How often depends on the
class of the failure (`RESTARTS`); all classes together are capped (`WITHOUT_PROGRESS`). A job that
gets further is forgiven everything but the nodes that it avoids. Pauses between restarts grow.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from llamaforge.coordinator.leading.outcome import RESUME_HINT, Outcome, Setback
from llamaforge.spec.job import OnNodeLoss
from llamaforge.spec.states import FailureClass, JobState

RESTARTS: Mapping[FailureClass, int] = {
    FailureClass.NODE_LOST: 6,  # nobody's fault, and others can take its place
    FailureClass.ERROR: 3,  # may be a race; the same words at the same step end it sooner
    FailureClass.HANG: 2,  # each costs far more time than a crash
    FailureClass.ENVIRONMENT: 2,  # once for what passes by itself, once without the node
    FailureClass.MEMORY: 1,  # something else may have needed the memory; a second time it did not
    FailureClass.USER: 0,  # the same words would be read again
    FailureClass.DATA: 0,  # the same rows would be read again
}
"""How often a job is tried again after failures of a class, while it gets no further."""
WITHOUT_PROGRESS = 8
"""How often a job is tried again while it gets no further, whatever the classes."""
AVOIDED_AFTER: Mapping[FailureClass, int] = {
    FailureClass.ENVIRONMENT: 2,
    FailureClass.HANG: 2,
    FailureClass.NODE_LOST: 3,
}
"""Failures of a class on one node without progress after which that node is left out."""
FIRST_PAUSE = 0.5
"""Seconds before the second restart without progress; the first one is at once."""
LONGEST_PAUSE = 60.0
FULL_DISK_PAUSE = 5.0
"""Seconds before it is tried whether a full disk has room again; grows as other pauses do."""


class Failures(msgspec.Struct, frozen=True, kw_only=True):
    """What has gone wrong in a job; all but `avoid` since it last got further."""

    counts: dict[FailureClass, int] = {}
    """Generations that failed and came no further than the one before."""
    nodes: dict[str, dict[FailureClass, int]] = {}
    """The same by the node of the first cause."""
    step: int = -1
    """The furthest committed step at which one failed."""
    said: str = ""
    """What the last one failed with, where it said so itself."""
    full_disks: int = 0
    """Times in a row that a full disk ended a generation; they count for nothing else."""
    avoid: frozenset[str] = frozenset()
    """Nodes that the job does without as long as there are enough others."""

    @property
    def count(self) -> int:
        """Failures of all classes."""
        return sum(self.counts.values())


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a job."""

    outcome: Outcome
    """Its end; without a state it goes on."""
    failures: Failures
    """What went wrong so far: the next decision's `before`, to be kept."""
    pause: float = 0.0
    """Seconds to wait before the next generation."""

    @property
    def avoid(self) -> frozenset[str]:
        """Nodes to leave out of the next generation as long as there are enough others."""
        return self.failures.avoid


def decide(
    before: Failures,
    outcome: Outcome,
    *,
    step: int,
    stop_reason: str,
    policy: OnNodeLoss,
    max_restarts: int | None = None,
) -> Decision:
    """What becomes of a job.

    Args:
        before: what went wrong earlier.
        outcome: how the generation ended.
        step: the last step that it committed; the same number always for a script that tells none.
        stop_reason: why somebody asked the job to stop; empty when nobody did.
        policy: whether the job may go on without a node or a rank that was lost.
        max_restarts: of a script: how often errors of its own are tried again. Its exit codes say
            little, so that the same one twice is not believed.

    Returns:
        The job's end, or that it goes on (also from a full disk: `outcome.full_disk`).
    """
    if outcome.state is not None and outcome.setback is None:
        return Decision(outcome=outcome, failures=before)
    if stop_reason:
        return Decision(outcome=_stopped(outcome, stop_reason), failures=before)
    if outcome.setback in (None, Setback.GAVE_WAY):
        return Decision(outcome=_going_on(outcome), failures=before)
    if outcome.full_disk:
        return _after_full_disk(before, outcome)
    if policy == "fail":
        return Decision(outcome=outcome, failures=before)
    after = _counted(before, outcome, step)
    if max_restarts is None and _same_again(before, outcome, step):
        told = _told(outcome, "it failed twice with the same error")
        return Decision(outcome=told, failures=after)
    if _spent(after, failure_of(outcome), max_restarts):
        return Decision(outcome=_told(outcome, _in_words(after)), failures=after)
    return Decision(outcome=_going_on(outcome), failures=after, pause=_pause(after.count))


def failure_of(outcome: Outcome) -> FailureClass:
    """The class of a generation's failure; by its setback where nothing better is known."""
    if outcome.failure is not None:
        return outcome.failure
    return FailureClass.NODE_LOST if outcome.setback is Setback.LOST else FailureClass.ERROR


def _spent(after: Failures, failure: FailureClass, max_restarts: int | None) -> bool:
    """Whether the class's budget, or that of all of them, is used up."""
    budget = RESTARTS[failure]
    if max_restarts is not None and failure is not FailureClass.NODE_LOST:
        budget = max_restarts if failure is FailureClass.ERROR else min(budget, max_restarts)
    cap = max(WITHOUT_PROGRESS, max_restarts or 0)
    return after.counts[failure] > budget or after.count > cap


def _counted(before: Failures, outcome: Outcome, step: int) -> Failures:
    failure = failure_of(outcome)
    further = step > before.step
    counts = {} if further else before.counts
    nodes = {} if further else before.nodes
    here = nodes.get(outcome.node, {})
    here = {**here, failure: here.get(failure, 0) + 1}
    flawed = here[failure] >= AVOIDED_AFTER.get(failure, 1 << 30)
    avoid = before.avoid | {outcome.node} if flawed and outcome.node else before.avoid
    return Failures(
        counts={**counts, failure: counts.get(failure, 0) + 1},
        nodes={**nodes, outcome.node: here},
        step=max(step, before.step),
        said=_own_words(outcome),
        avoid=avoid,
    )


def _after_full_disk(before: Failures, outcome: Outcome) -> Decision:
    """A full disk is waited for, however long; nothing but the pause grows."""
    times = before.full_disks + 1
    return Decision(
        outcome=_going_on(outcome),
        failures=msgspec.structs.replace(before, full_disks=times),
        pause=min(FULL_DISK_PAUSE * 2.0 ** min(times - 1, 10), LONGEST_PAUSE),
    )


def _pause(failures: int) -> float:
    """Seconds before the next try, the `failures`-th without progress."""
    if failures <= 1:
        return 0.0
    return min(FIRST_PAUSE * 2.0 ** min(failures - 2, 10), LONGEST_PAUSE)


def _own_words(outcome: Outcome) -> str:
    """What a rank failed with; "" for other classes, whose words say nothing of the job."""
    return outcome.said if failure_of(outcome) is FailureClass.ERROR else ""


def _same_again(before: Failures, outcome: Outcome, step: int) -> bool:
    """The same words at the same step; a report and the last metric line may cross by one."""
    says = _own_words(outcome)
    return bool(says) and says == before.said and step <= before.step + 1


def _in_words(after: Failures) -> str:
    classes = ", ".join(f"{failure.value}: {times}" for failure, times in after.counts.items())
    times = "once" if after.count == 1 else f"{after.count} times"
    return f"it failed {times} without getting past step {max(after.step, 0)} ({classes})"


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
