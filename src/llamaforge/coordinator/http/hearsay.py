"""What of a worker's words is believed: of its own ranks only, and in shapes that can be kept.

A node's certificate says who speaks. It does not say that what is said is true, nor that it is
about a job of that node: one that was taken over must not end the jobs of the others.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from llamaforge.coordinator.node import Node
from llamaforge.spec import ranks
from llamaforge.wire.messages import (
    FromWorker,
    PreflightReport,
    RankExited,
    RankLog,
    RankSaid,
    Stacks,
    Uploaded,
)
from llamaforge.wire.updates import NodeRanks

DEEPEST = 32
"""Levels in a metric line, a note's fields or a proof: what can't be read again is not kept."""
LARGEST_STEP = 2**53


def check(message: FromWorker) -> None:
    """Refuses what the types let pass and nobody could keep.

    Raises:
        msgspec.ValidationError: says what is wrong.
    """
    if not isinstance(message, RankSaid):
        return
    report = message.report
    if isinstance(report, ranks.Metric):
        step = report.line.get("step", 0)
        if not isinstance(step, int) or not 0 <= step <= LARGEST_STEP:
            raise msgspec.ValidationError(f"a metric line's step is {str(step)[:40]!r}")
        _check_depth(report.line)
    elif isinstance(report, ranks.Note):
        _check_depth(report.fields)
    elif isinstance(report, ranks.Finished):
        _check_depth(report.proof)


def concerns(node: Node, message: object, members: Iterable[NodeRanks], job: str) -> bool:
    """Whether a node may say this of a job.

    Args:
        node: who speaks.
        message: one that names the job.
        members: of the job's running generation, in the order of their ranks.
        job: the job's id.
    """
    if isinstance(message, PreflightReport):
        return True  # who was asked is known to whoever asked
    placed = {member.node: member for member in members}
    mine = placed.get(node.name)
    if isinstance(message, RankLog):
        return mine is not None or node.job == job
    if mine is None:
        return False
    own = range(mine.first_rank, mine.first_rank + mine.count)
    if isinstance(message, RankSaid | RankExited):
        return message.rank in own
    if isinstance(message, Stacks):
        return all(rank.rank in own for rank in message.ranks)
    if isinstance(message, Uploaded):
        return mine.first_rank == 0
    return True


def _check_depth(value: object, left: int = DEEPEST) -> None:
    if left == 0:
        raise msgspec.ValidationError(f"more than {DEEPEST} levels deep")
    if isinstance(value, dict):
        for inner in value.values():
            _check_depth(inner, left - 1)
    elif isinstance(value, list):
        for inner in value:
            _check_depth(inner, left - 1)
