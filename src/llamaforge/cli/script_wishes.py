"""What `llamaforge run` was asked for in words: nodes, processes, labels, variables."""

from __future__ import annotations

from collections.abc import Iterable

from llamaforge.errors import UserError
from llamaforge.spec.labels import parse_labels
from llamaforge.spec.sizes import parse_size
from llamaforge.spec.wishes import Wishes
from llamaforge.worker.script_environment import reserved

PROCESSES = 4096
"""Most processes on a node."""


def wishes(
    *,
    nodes: int | None,
    min_nodes: int | None,
    nproc_per_node: str,
    labels: str,
    min_memory: str | None,
    min_gpus: int,
    priority: int,
) -> Wishes:
    """What the fleet is asked for.

    Raises:
        UserError: a value is wrong, or two contradict each other.
    """
    if nodes is not None and min_nodes is not None and min_nodes > nodes:
        raise UserError(
            f"--min-nodes {min_nodes} is more than --nodes {nodes}",
            hint="--nodes is the most that take part",
        )
    return Wishes(
        min_nodes=min_nodes or nodes or 1,
        max_nodes=nodes,
        ranks_per_node=_processes(nproc_per_node),
        labels=parse_labels(labels, source="--labels"),
        min_memory=parse_size(min_memory, source="--min-memory") if min_memory else 0,
        min_gpus=min_gpus,
        priority=priority,
    )


def variables(given: Iterable[str]) -> dict[str, str]:
    """`K=V` words as variables.

    Raises:
        UserError: a word is none, or names what torchrun sets.
    """
    found: dict[str, str] = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise UserError(f"--env {word!r} is not NAME=VALUE", hint="for example --env LR=0.1")
        if "\0" in value:
            raise UserError(f"--env {name} holds a zero byte", hint="no variable can")
        if reserved(name):
            raise UserError(
                f"--env {name}: each rank gets its own {name}",
                hint="docs/RUN.md lists what is set for you",
            )
        found[name] = value
    return found


def _processes(text: str) -> int | None:
    """Processes on each node; None for what its worker was told."""
    if text == "auto":
        return None
    number = int(text) if text.isascii() and text.isdecimal() else 0
    if not 1 <= number <= PROCESSES:
        raise UserError(
            f"--nproc-per-node is {text!r}", hint=f"it is a number from 1 to {PROCESSES}, or auto"
        )
    return number
