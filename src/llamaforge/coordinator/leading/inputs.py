"""What a generation hears, as it is written down: the same inputs make the same generation again.

A coordinator that was killed makes the state machine of a running generation anew and tells it all
of this once more. Only what can change it is kept: of the metric lines the first one, no output.
"""

from __future__ import annotations

import msgspec

from llamaforge.coordinator.leading.generation import Generation
from llamaforge.spec import ranks
from llamaforge.wire.messages import CannotStart, FromWorker, RankExited, RankSaid, Uploaded


class Heard(msgspec.Struct, frozen=True, kw_only=True, tag="heard"):
    """A worker's message."""

    node: str
    message: FromWorker


class NodeLost(msgspec.Struct, frozen=True, kw_only=True, tag="lost"):
    """A node is gone for good."""

    node: str
    why: str


class NodeLeaves(msgspec.Struct, frozen=True, kw_only=True, tag="leaves"):
    """A member's worker was told to end, or its node is drained."""

    node: str
    why: str


class Regroup(msgspec.Struct, frozen=True, kw_only=True, tag="regroup"):
    """The job should go on with other members."""

    why: str


class Hang(msgspec.Struct, frozen=True, kw_only=True, tag="hang"):
    """A rank has stopped, and all others wait for it."""

    rank: int
    why: str
    seconds: float


class StopWish(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """Somebody wants the job's end."""

    reason: str
    now: bool = False


class FolderFailed(msgspec.Struct, frozen=True, kw_only=True, tag="folder"):
    """The job's folder refuses."""

    what: str
    full: bool = False


class Ticked(msgspec.Struct, frozen=True, kw_only=True, tag="tick"):
    """The deadline has come."""


Input = Heard | NodeLost | NodeLeaves | Regroup | Hang | StopWish | FolderFailed | Ticked


class ReplayClock:
    """The time while old inputs are heard again: stands still, but for deadlines that had come."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        """Seconds that only grow."""
        return self.now


def matters(told: Input, generation: Generation) -> bool:
    """Whether an input can change a generation's state."""
    if not isinstance(told, Heard):
        return True
    message = told.message
    if isinstance(message, RankSaid):
        report = message.report
        if isinstance(report, ranks.Metric):
            return not generation.trains
        return isinstance(report, ranks.StoreReady | ranks.Finished | ranks.Failed)
    return isinstance(message, RankExited | CannotStart | Uploaded)


def apply(told: Input, generation: Generation) -> None:
    """Lets a generation hear it."""
    if isinstance(told, Heard):
        _hear(told, generation)
    elif isinstance(told, NodeLost):
        generation.lost(told.node, told.why)
    elif isinstance(told, NodeLeaves):
        generation.leave(told.node, told.why)
    elif isinstance(told, Regroup):
        generation.regroup(told.why)
    elif isinstance(told, Hang):
        generation.hangs(told.rank, told.why, told.seconds)
    elif isinstance(told, StopWish):
        (generation.end_now if told.now else generation.stop)(told.reason)
    elif isinstance(told, FolderFailed):
        generation.folder_failed(told.what, full=told.full)
    else:
        _tick(generation)


def _hear(told: Heard, generation: Generation) -> None:
    message = told.message
    if isinstance(message, RankSaid):
        generation.said(message.rank, message.report)
    elif isinstance(message, RankExited):
        generation.exited(message)
    elif isinstance(message, CannotStart):
        generation.cannot_start(told.node, message)
    elif isinstance(message, Uploaded):
        generation.uploaded(told.node, message)


def _tick(generation: Generation) -> None:
    clock = generation.clock
    if isinstance(clock, ReplayClock) and generation.deadline is not None:
        clock.now = max(clock.now, generation.deadline)
    generation.tick()
