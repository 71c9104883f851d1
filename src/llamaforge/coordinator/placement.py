"""Which node runs which ranks: pure arithmetic over who waits."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Sequence

import msgspec

from llamaforge.errors import FleetError
from llamaforge.spec.job import Job
from llamaforge.spec.states import NodeState
from llamaforge.spec.wishes import Wishes, of_job
from llamaforge.wire.updates import NodeRanks

MOST_RANKS = 8
"""Ranks per node where nobody asked for a number: they share one copy of the weights' file, but
each needs its own activations."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A node as placement sees it."""

    name: str
    cores: int
    ranks: int | None = None
    """Ranks that its worker was told to run; None: by its cores."""
    address: str = ""
    """IP address at which its ranks can be reached."""
    memory: int = 0
    """Bytes."""
    gpus: int = 0
    labels: tuple[str, ...] = ()
    canary: str = ""
    """SHA-256 of its canary slice; empty while nobody has measured it."""
    state: NodeState = NodeState.READY
    free: bool = True
    """Whether a generation could start there now."""
    why_not: str = ""
    """Why it is not free, to be read after "box3 is", such as `busy: job a`."""

    @property
    def loopback(self) -> bool:
        """Whether only processes of the same machine can reach it."""
        try:
            return ipaddress.ip_address(self.address).is_loopback
        except ValueError:
            return False


def place(job: Job, candidates: Sequence[Candidate]) -> tuple[NodeRanks, ...]:
    """Takes the nodes that a job may have, and numbers its ranks there.

    Args:
        job: what will run; its spec may limit nodes and ranks per node.
        candidates: the waiting nodes, at least one.

    Raises:
        FleetError: the nodes can't reach each other.
    """
    wishes = of_job(job)
    chosen = sorted(candidates, key=lambda node: natural(node.name))[: wishes.max_nodes]
    _refuse_unreachable(chosen)
    return seat(wishes, chosen)


def seat(wishes: Wishes, chosen: Sequence[Candidate]) -> tuple[NodeRanks, ...]:
    """Numbers the ranks of a generation: contiguous on each node, nodes ordered by name.

    Args:
        wishes: of the job; they may say how many ranks a node runs.
        chosen: all nodes of the generation, at least one.
    """
    placed: list[NodeRanks] = []
    first = 0
    for node in sorted(chosen, key=lambda node: natural(node.name)):
        count = ranks_on(node, wishes)
        placed.append(NodeRanks(node=node.name, first_rank=first, count=count, cores=node.cores))
        first += count
    return tuple(placed)


def ranks_on(node: Candidate, wishes: Wishes) -> int:
    """How many ranks a node runs: as the job says, as its worker was told, or by its cores."""
    asked = wishes.ranks_per_node or node.ranks
    return asked or min(MOST_RANKS, max(1, node.cores // wishes.threads))


@functools.lru_cache(maxsize=1 << 14)
def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sorting key by which `worker-2` comes before `worker-10`."""
    return tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in re.split(r"(\d+)", name)
        if part
    )


def _refuse_unreachable(nodes: Sequence[Candidate]) -> None:
    """Loopback addresses work only where all nodes are the same machine."""
    local = [node for node in nodes if node.loopback]
    if local and len(local) < len(nodes):
        raise FleetError(
            f"node {local[0].name} is reached at {local[0].address}, which the other nodes can't",
            hint=f"start its worker with --address and an IP address of {local[0].name}",
        )
