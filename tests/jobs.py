"""Jobs for tests, with only what a test cares about spelled out."""

from __future__ import annotations

from typing import Any

from llamaforge.spec.job import Job, JobSpec


def make_job(
    *, rows: int = 10, rows_per_step: int = 4, heldout_rows: int = 0, threads: int = 1, **spec: Any
) -> Job:
    """A resolved job over `rows` rows; `spec` are options of the JobSpec."""
    asked = JobSpec(**{"model": "model", "dataset": "data.jsonl", **spec})
    steps_per_epoch = -(-rows // rows_per_step)
    return Job(
        id="test-job",
        spec=asked,
        rows=rows,
        heldout_rows=heldout_rows,
        rows_per_step=rows_per_step,
        steps_per_epoch=steps_per_epoch,
        total_steps=min(asked.max_steps or 10**9, steps_per_epoch * asked.epochs),
        learning_rate=asked.learning_rate or 1e-3,
        threads=threads,
        data_digest="0" * 64,
        model_digest="0" * 64,
        version="0",
    )
