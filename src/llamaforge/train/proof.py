"""The proof of a job: what was trained, by whom, and the digests of what came out."""

from __future__ import annotations

import platform
from typing import Any

import torch

from llamaforge import __version__
from llamaforge.spec.job import Job
from llamaforge.train.exact.guarantee import Guarantee
from llamaforge.train.state import State


def make_proof(
    job: Job,
    state: State,
    promise: Guarantee | None,
    *,
    heldout: float | None,
    seconds: float,
) -> dict[str, Any]:
    """What proof.json holds; the same on every rank but for `seconds`.

    Args:
        job: the job.
        state: after the last commit.
        promise: under which it ran; None when there was nothing to compute.
        heldout: held-out loss at the end; None for a job that stopped early.
        seconds: that this generation took.
    """
    cursor = state.cursor
    return {
        "job": job.id,
        "finished": cursor.step == job.total_steps,
        "steps": cursor.step,
        "total_steps": job.total_steps,
        "rows_trained": cursor.rows,
        "tokens": cursor.tokens,
        "order_sha256": cursor.order,
        "weights_sha256": state.weights_digest(),
        "optimizer_sha256": state.optimizer_digest(),
        "chain": cursor.chain,
        "steps_redone": cursor.redone,
        "heldout_loss_before": cursor.heldout_before,
        "heldout_loss_after": heldout,
        "guarantee": promise.promise.value if promise else None,
        "guarantee_why": promise.why if promise else "nothing was trained",
        "generations": cursor.generations,
        "kernels": {
            "path": "eager",
            "precision": job.spec.precision,
            "threads_per_rank": job.threads,
            "torch": str(torch.__version__),
            "cpu": torch.backends.cpu.get_cpu_capability(),
        },
        "llamaforge": __version__,
        "python": platform.python_version(),
        "seconds": round(seconds, 3),
    }
