"""What a job says of itself while it trains: how it runs, and a line for every step."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Sequence
from typing import Any

from llamaforge.spec.job import Job
from llamaforge.spec.ranks import Progress
from llamaforge.train.exact.guarantee import Guarantee
from llamaforge.train.place import Place
from llamaforge.train.report import Reporter
from llamaforge.train.rig import Rig
from llamaforge.train.rows import lint
from llamaforge.train.state import Cursor
from llamaforge.train.step import StepSum


def say_how_it_runs(
    reporter: Reporter, rig: Rig, *, promise: Guarantee | None, ranks: int, slices: int
) -> None:
    """Notes of a generation's start.

    Args:
        reporter: where to.
        rig: what the rank computes with.
        promise: under which the job runs; None when there is nothing to compute.
        ranks: the world size.
        slices: of the next step.
    """
    if promise is not None:
        text = f"guarantee: {promise.promise.value}; {promise.why}"
        reporter.note("guarantee", text, promise=promise.promise.value)
    if not rig.passes.packed:
        reporter.note(
            "isolation", "this model mixes rows that share a slice; rows go through one by one"
        )
    if slices < 2 * ranks and ranks > 1:
        reporter.note(
            "grain",
            f"slices per step: {slices}, for {ranks} ranks; "
            "a larger batch_size shares the work better",
            slices=slices,
        )


def say_lint(reporter: Reporter, rig: Rig) -> None:
    """What a person should know about their rows."""
    for line in lint.of_feed(rig.feed).lines():
        reporter.note("lint", line)


def progress(job: Job, place: Place, generation: int, nodes: Sequence[str]) -> Progress:
    """Where a job is before the generation's first step; `msgspec.structs.replace` the rest."""
    return Progress(
        job=job.id,
        generation=generation,
        rank=place.rank,
        world_size=place.world_size,
        nodes=len(set(nodes)),
        step=0,
        total_steps=job.total_steps,
    )


def step_line(
    cursor: Cursor,
    result: StepSum,
    *,
    epoch: float,
    rate: float,
    seconds: float,
    nodes: Sequence[str],
    shared: Sequence[tuple[int, ...]],
    generation: int,
) -> dict[str, Any]:
    """The line of metrics.jsonl for the step that was just committed.

    Args:
        cursor: after the commit.
        result: the step's sum.
        epoch: epochs that are done, as a fraction.
        rate: the learning rate.
        seconds: that the step took here.
        nodes: node of every rank.
        shared: slices of every rank.
        generation: who committed.
    """
    by_node: Counter[str] = Counter()
    for node, share in zip(nodes, shared, strict=True):
        by_node[node] += len(share)
    return {
        "step": cursor.step,
        "epoch": round(epoch, 4),
        "loss": result.loss if result.trained else None,
        "tokens": result.trained,
        "total_tokens": result.tokens,
        "lr": rate,
        "grad_norm": result.norm,
        "seconds": round(seconds, 6),
        "tokens_per_second": round(result.tokens / seconds, 2),
        "shares": dict(by_node),
        "redone": result.redone,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "generation": generation,
        "chain": cursor.chain,
    }
