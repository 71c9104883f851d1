"""A job's stream: everything that happens to it, in order, as clients receive it.

The coordinator numbers the updates from 0 and keeps them all, so that a client can come late,
lose its connection, and still see each one exactly once.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llamaforge.spec.states import JobState


class StateChanged(msgspec.Struct, frozen=True, kw_only=True, tag="state"):
    """The job is in another state now."""

    state: JobState
    reason: str = ""


class NodeRanks(msgspec.Struct, frozen=True, kw_only=True):
    """One node's ranks in a generation."""

    node: str
    first_rank: int
    count: int
    cores: int
    """Processor cores of the node."""


class GenerationStarted(msgspec.Struct, frozen=True, kw_only=True, tag="generation"):
    """A membership of the job: which node runs which ranks.

    Shares are counted in slices; the metric lines tell them (`shares`: node to slices).
    """

    generation: int
    world_size: int
    nodes: tuple[NodeRanks, ...]
    after: int = 0
    """Committed steps that it starts from; lines of later steps are void and come again."""
    time: float = 0.0
    """Unix time in seconds."""


class MetricLine(msgspec.Struct, frozen=True, kw_only=True, tag="metric"):
    """One line of metrics.jsonl."""

    line: dict[str, Any]


class NoteLine(msgspec.Struct, frozen=True, kw_only=True, tag="note"):
    """One line of events.jsonl: something worth telling a person once."""

    kind: str
    text: str
    fields: dict[str, Any] = {}
    time: float = 0.0
    """Unix time in seconds."""


class LogLine(msgspec.Struct, frozen=True, kw_only=True, tag="log"):
    """One line that a rank wrote to its standard output or error."""

    node: str
    rank: int
    text: str


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """The last update of a job. Its workers wait for the next one already."""

    state: JobState
    """DONE, STOPPED or FAILED."""
    reason: str
    """For FAILED: node, rank, cause, and the last lines of the rank's output."""
    hint: str = ""
    """What to do next; may be empty."""
    user_error: bool = False
    """True when the person who asked can fix it: the exit code is then 2."""
    output_dir: str
    """The job's folder on the coordinator's host."""
    proof: dict[str, Any] | None = None
    """proof.json of a finished or stopped job."""
    failure: str = ""
    """Class of a failure (`spec.states.FailureClass`); empty where it did not fail."""


JobUpdate = StateChanged | GenerationStarted | MetricLine | NoteLine | LogLine | Ended


class Numbered(msgspec.Struct, frozen=True, kw_only=True):
    """An update and its place in the job's stream, counted from 0."""

    number: int
    update: JobUpdate
