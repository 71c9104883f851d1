"""What a job wants from a fleet, whatever it runs: how many machines, which ones, how urgently."""

from __future__ import annotations

import msgspec

from llamaforge.spec.job import Job, OnNodeLoss


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """A job's needs and its policy; all that placement looks at."""

    min_nodes: int = 1
    """It starts only when so many nodes can be had at once."""
    max_nodes: int | None = None
    """None: all that are free."""
    ranks_per_node: int | None = None
    """None: as the worker was told, else by its cores."""
    threads: int = 1
    """Compute threads per rank."""
    labels: tuple[str, ...] = ()
    """All of them must be on a node."""
    min_memory: int = 0
    """Bytes of memory of a node."""
    min_gpus: int = 0
    same_numbers: bool = False
    """Only nodes whose canary slices agree."""
    priority: int = 0
    """Higher ones go first; first come, first served among equals."""
    on_node_loss: OnNodeLoss = "continue"


def of_job(job: Job) -> Wishes:
    """The wishes of a training job."""
    spec = job.spec
    return Wishes(
        min_nodes=spec.min_nodes,
        max_nodes=spec.nodes,
        ranks_per_node=spec.ranks_per_node,
        threads=job.threads,
        labels=spec.labels,
        min_memory=int(spec.min_memory * 2**30),
        min_gpus=spec.min_gpus,
        same_numbers=spec.same_numbers,
        priority=spec.priority,
        on_node_loss=spec.on_node_loss,
    )
