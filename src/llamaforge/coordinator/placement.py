"""Which node runs which ranks: pure arithmetic over who waits."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

import msgspec

from llamaforge.errors import FleetError
from llamaforge.spec.job import Job
from llamaforge.wire.updates import NodeRanks

MOST_RANKS = 8
"""Ranks per node where nobody asked for a number: they share one copy of the weights' file, but
each needs its own activations."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A node that waits for a job."""

    name: str
    cores: int
    ranks: int | None = None
    """Ranks that its worker was told to run; None: by its cores."""
    address: str = ""
    """IP address at which its ranks can be reached."""


def place(job: Job, candidates: Sequence[Candidate]) -> tuple[NodeRanks, ...]:
    """Numbers the ranks of a generation: contiguous on each node, nodes ordered by name.

    Args:
        job: what will run; its spec may limit nodes and ranks per node.
        candidates: the waiting nodes, at least one.

    Raises:
        FleetError: the nodes can't reach each other.
    """
    chosen = sorted(candidates, key=lambda node: natural(node.name))[: job.spec.nodes]
    _refuse_unreachable(chosen)
    placed: list[NodeRanks] = []
    first = 0
    for node in chosen:
        count = ranks_on(node, job)
        placed.append(NodeRanks(node=node.name, first_rank=first, count=count, cores=node.cores))
        first += count
    return tuple(placed)


def ranks_on(node: Candidate, job: Job) -> int:
    """How many ranks a node runs: as the job says, as its worker was told, or by its cores."""
    asked = job.spec.ranks_per_node or node.ranks
    return asked or min(MOST_RANKS, max(1, node.cores // job.threads))


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sorting key by which `worker-2` comes before `worker-10`."""
    return tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in re.split(r"(\d+)", name)
        if part
    )


def _refuse_unreachable(nodes: Sequence[Candidate]) -> None:
    """Loopback addresses work only where all nodes are the same machine."""
    local = [node for node in nodes if _is_loopback(node.address)]
    if local and len(local) < len(nodes):
        raise FleetError(
            f"node {local[0].name} is reached at {local[0].address}, which the other nodes can't",
            hint=f"start its worker with --address and an IP address of {local[0].name}",
        )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
