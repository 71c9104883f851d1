"""The stream of a small job, as a coordinator tells it."""

from __future__ import annotations

from typing import Any

from llamaforge.spec.states import JobState
from llamaforge.wire.updates import (
    Ended,
    GenerationStarted,
    JobUpdate,
    LogLine,
    MetricLine,
    NodeRanks,
    NoteLine,
    StateChanged,
)

NODES = (
    NodeRanks(node="big", first_rank=0, count=2, cores=8),
    NodeRanks(node="small", first_rank=2, count=1, cores=2),
)


def step(number: int, **more: Any) -> MetricLine:
    """A step's line: 4 slices, 3 of them computed by `big`, 100 tokens in half a second."""
    line = {
        "step": number,
        "loss": 3.0 / number,
        "tokens": 60,
        "total_tokens": 100,
        "seconds": 0.5,
        "tokens_per_second": 200.0,
        "shares": {"big": 3, "small": 1},
    }
    return MetricLine(line={**line, **more})


def ended(folder: str, state: JobState = JobState.DONE, **more: Any) -> Ended:
    proof = {
        "guarantee": "same numbers",
        "guarantee_why": "all 3 ranks agree on a canary slice",
        "heldout_loss_before": 2.5,
    }
    return Ended(**{"state": state, "reason": "", "output_dir": folder, "proof": proof, **more})


def stream(folder: str, steps: int = 4) -> list[JobUpdate]:
    return [
        StateChanged(state=JobState.STARTING, reason="3 ranks on 2 nodes"),
        GenerationStarted(generation=1, world_size=3, nodes=NODES),
        StateChanged(state=JobState.RUNNING),
        NoteLine(kind="guarantee", text="guarantee: same numbers"),
        LogLine(node="big", rank=0, text="hello from a rank\n"),
        MetricLine(line={"step": 0, "heldout_loss": 2.5, "seconds": 1.0}),
        *(step(number) for number in range(1, steps + 1)),
        MetricLine(line={"step": steps, "heldout_loss": 1.25, "seconds": 1.0}),
        StateChanged(state=JobState.FINISHING),
        ended(folder),
    ]
