"""Who takes part in a classic job: versions that must agree, and what the nodes settle together.

Nothing is shipped or read before every process has said what it runs: gradients of different
torch versions are not the same numbers, and a Python that can't read what another wrote fails in
the middle of a job.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence

import msgspec
import torch

from llamaforge import __version__
from llamaforge.errors import UserError
from llamaforge.spec.fleet import NETWORK_TIMEOUT
from llamaforge.spec.versions import decisive
from llamaforge.train.classic.exchange import Exchange
from llamaforge.train.classic.launch import Launch
from llamaforge.train.classic.network import agree, own_address

PATIENCE = 300.0
"""Seconds for every process to start and say hello; importing torch from a slow disk takes one."""
COMPARED = ("Python", "torch", "LlamaForge")


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """What one process says about itself."""

    node_name: str
    node: int
    nodes: int
    """Nodes that its torchrun was started for."""
    local_ranks: int
    cores: int
    """Processor cores that its node may use."""
    address: str
    """Its node's address on the route to the first node."""
    versions: dict[str, str]
    """By the names in `COMPARED`."""
    network_timeout: float = NETWORK_TIMEOUT
    """Seconds that it would wait for a silent peer."""


class Team(msgspec.Struct, frozen=True, kw_only=True):
    """What the first process settles from all hellos."""

    names: list[str]
    """By node."""
    addresses: list[str]
    """By node."""
    local_ranks: list[int]
    """By node."""
    threads: int
    """Compute threads per rank that every node has cores for."""
    network_timeout: float = NETWORK_TIMEOUT
    """Seconds that all wait for a silent peer: the longest that one of them was set to, since
    the first to lose patience ends the attempt for all."""


def hello(
    launch: Launch,
    name: str,
    environ: Mapping[str, str],
    *,
    cores: int | None = None,
    address: str | None = None,
    network_timeout: float = NETWORK_TIMEOUT,
) -> Hello:
    """This process's own words.

    Args:
        launch: its place.
        name: its node's name.
        environ: its environment.
        cores: cores that its node may use; by default all that this process may run on.
        address: its node's address; by default the one on the route to the first node.
        network_timeout: seconds that it would wait for a silent peer.

    Raises:
        LlamaForgeError: it has no route to the first node.
    """
    if address is None:
        address = own_address(launch.store_host, environ) if launch.store_host else "127.0.0.1"
    return Hello(
        node_name=name,
        node=launch.node,
        nodes=launch.nodes,
        local_ranks=launch.local_ranks,
        cores=cores or len(os.sched_getaffinity(0)),
        address=address,
        versions=own_versions(),
        network_timeout=network_timeout,
    )


def own_versions() -> dict[str, str]:
    """What this process runs, as far as it decides (see `spec.versions`)."""
    here = {"Python": platform.python_version(), "torch": torch.__version__}
    decide = {what: decisive(what, version) for what, version in here.items()}
    return {**decide, "LlamaForge": __version__}


def gather(exchange: Exchange, mine: Hello, environ: Mapping[str, str]) -> Team:
    """Says hello and waits for the team; the first process makes it.

    Raises:
        UserError: versions or numbers of nodes differ; on every process.
        Refused: another process can't go on.
        FleetError: a process did not come.
    """
    launch = exchange.launch
    exchange.say(f"hello/{launch.rank}", mine)
    if launch.rank == 0:
        hellos = [
            exchange.hear(f"hello/{rank}", Hello, patience=PATIENCE)
            for rank in range(launch.world_size)
        ]
        compare(hellos)
        exchange.say("team", settle(hellos, environ))
    return exchange.hear("team", Team)


def compare(hellos: Sequence[Hello]) -> None:
    """Refuses processes that must not train together.

    Args:
        hellos: by rank.

    Raises:
        UserError: names both nodes and both values.
    """
    first = hellos[0]
    for other in hellos[1:]:
        if other.nodes != first.nodes:
            raise UserError(
                f"torchrun runs with {first.nodes} nodes on {first.node_name}, "
                f"but with {other.nodes} on {other.node_name}",
                hint=f"set WORLD_SIZE={first.nodes} in the worker's settings on {other.node_name}",
            )
        for what in COMPARED:
            ours, theirs = first.versions.get(what), other.versions.get(what)
            if ours != theirs:
                raise UserError(
                    f"{first.node_name} runs {what} {ours}, but {other.node_name} runs "
                    f"{what} {theirs}",
                    hint=f"install the same version of {what} on both machines",
                )


def settle(hellos: Sequence[Hello], environ: Mapping[str, str]) -> Team:
    """The team that follows from all hellos.

    Args:
        hellos: by rank; all compared.
        environ: of the first process.
    """
    by_node = {word.node: word for word in reversed(hellos)}
    nodes = [by_node[node] for node in sorted(by_node)]
    return Team(
        names=_distinct([node.node_name for node in nodes]),
        addresses=agree([node.address for node in nodes], environ),
        local_ranks=[node.local_ranks for node in nodes],
        threads=min(max(1, node.cores // node.local_ranks) for node in nodes),
        network_timeout=max(node.network_timeout for node in nodes),
    )


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, with the node's rank added where two machines are called the same."""
    return [name if names.count(name) == 1 else f"{name}-{node}" for node, name in enumerate(names)]
