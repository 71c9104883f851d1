"""What a job wants from a fleet, whatever it runs: how many machines, which ones, how urgently."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from llamaforge.spec.job import Job, OnNodeLoss

Some = Annotated[int, Meta(ge=1, le=2**31)]
"""One or more of something: what arrives over HTTP is held to it, too."""


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """A job's needs and its policy; all that placement looks at."""

    min_nodes: Some = 1
    """It starts only when so many nodes can be had at once."""
    max_nodes: Some | None = None
    """None: all that are free."""
    ranks_per_node: Annotated[int, Meta(ge=1, le=4096)] | None = None
    """None: as the worker was told, else by its cores."""
    threads: Some = 1
    """Compute threads per rank."""
    labels: tuple[str, ...] = ()
    """All of them must be on a node."""
    min_memory: Annotated[int, Meta(ge=0, le=2**53)] = 0
    """Bytes of memory of a node."""
    min_gpus: Annotated[int, Meta(ge=0, le=2**31)] = 0
    same_numbers: bool = False
    """Only nodes whose canary slices agree."""
    priority: Annotated[int, Meta(ge=-(2**31), le=2**31)] = 0
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
