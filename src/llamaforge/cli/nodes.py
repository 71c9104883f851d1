"""`llamaforge nodes`: the fleet's nodes, and what they should do from now on.

llamaforge nodes
llamaforge nodes drain box2 --reason "new disk"
llamaforge nodes allow box2
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

import click

from llamaforge.cli.asking import ask, dry_run_option, fleet_option, json_option, put, table
from llamaforge.cli.names import NodeName, one_node
from llamaforge.cli.words import ago, first_line, size
from llamaforge.wire.api import NodeStatus
from llamaforge.wire.client import FleetClient

HEAD = (
    *("node", "state", "since", "job", "cores", "memory", "gpus", "bits", "labels"),
    *("version", "address", "reason"),
)
Wish = Literal["drain", "cordon", "allow", "remove"]
THEN = {
    "drain": "takes no more jobs; what runs there goes on to its end",
    "cordon": "takes no more jobs",
    "allow": "takes jobs again",
    "remove": "is not of this fleet any more: its certificate is refused, and only a new token "
    "lets it back in",
}


@click.group("nodes", invoke_without_command=True)
@fleet_option
@json_option
@click.pass_context
def command(ctx: click.Context, fleet: Path | None, as_json: bool) -> None:
    """List the fleet's nodes, or say what one should do.

    Nodes with the same letter under `bits` have computed the same canary slice to the same bits:
    on them a job runs under "same numbers".
    """
    if ctx.invoked_subcommand is not None:
        return
    found = ask(fleet, lambda client: client.status()).nodes
    if as_json:
        for node in found:
            put(node)
    elif found:
        click.echo("\n".join(lines(found, time.time())))
    else:
        click.echo("no node has joined yet; `llamaforge coordinator token` says how")


def lines(found: Sequence[NodeStatus], now: float) -> list[str]:
    """Nodes as a table.

    Args:
        found: the nodes.
        now: Unix time in seconds.
    """
    bits = groups(found)
    return table(HEAD, (_row(node, bits, now) for node in found))


def groups(found: Sequence[NodeStatus]) -> dict[str, str]:
    """A letter for each canary digest, the most frequent one first."""
    counted = Counter(node.canary for node in found if node.canary)
    ordered = sorted(counted, key=lambda digest: (-counted[digest], digest))
    return {
        digest: ascii_uppercase[place] if place < 26 else f"#{place + 1}"
        for place, digest in enumerate(ordered)
    }


def _row(node: NodeStatus, bits: dict[str, str], now: float) -> tuple[str, ...]:
    return (
        node.name,
        node.state.value,
        ago(now - node.since),
        f"{node.job} ({node.ranks})" if node.job and node.ranks else node.job,
        str(node.cores),
        size(node.memory) if node.memory else "",
        str(node.gpus or ""),
        bits.get(node.canary, ""),
        ",".join(node.labels),
        node.versions.get("llamaforge", ""),
        node.address,
        first_line(node.reason),
    )


def _wish_options(*, now: str = "") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: a node, and the options of every wish."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        function = json_option(fleet_option(dry_run_option(function)))
        if now:
            function = click.option("--now", is_flag=True, help=now)(function)
        function = click.option("--reason", metavar="TEXT", default="", help="Kept with it.")(
            function
        )
        return click.argument("node", type=NodeName())(function)

    return decorate


@command.command("drain")
@_wish_options(now="Leave its job at the next checkpoint, which then goes on without it.")
def drain(node: str, **how: Any) -> None:
    """Let a node finish what runs there, and give it nothing new."""
    wish("drain", node, **how)


@command.command("cordon")
@_wish_options()
def cordon(node: str, **how: Any) -> None:
    """Give a node nothing new."""
    wish("cordon", node, **how)


@command.command("allow")
@_wish_options()
def allow(node: str, **how: Any) -> None:
    """Let a drained or cordoned node take jobs again."""
    wish("allow", node, **how)


@command.command("remove")
@_wish_options(now="Even while it runs a job, which then goes on without it.")
def remove(node: str, **how: Any) -> None:
    """Put a node out of the fleet; it is refused at once."""
    wish("remove", node, **how)


def wish(
    what: Wish,
    name: str,
    *,
    fleet: Path | None,
    as_json: bool,
    dry_run: bool,
    reason: str,
    now: bool = False,
) -> None:
    """Says what a node should do, and tells the person what follows.

    Raises:
        UserError: there is no such node, or the coordinator refuses.
        FleetError: the coordinator is gone.
    """

    async def say(client: FleetClient) -> NodeStatus:
        node = one_node((await client.status()).nodes, name)
        if not dry_run:
            await client.wish(node.name, what, reason=reason, now=now)
        return node

    node = ask(fleet, say)
    if as_json:
        put({"type": "wish", "node": node.name, "wish": what, "now": now, "dry_run": dry_run})
    else:
        click.echo(("dry run: " if dry_run else "") + sentence(what, node, now=now))


def sentence(what: Wish, node: NodeStatus, *, now: bool) -> str:
    """What follows from a wish, for a person."""
    then = THEN[what]
    if what == "drain" and not node.job:
        then = "takes no more jobs; it runs none"
    elif what == "drain" and now:
        then = f"takes no more jobs, and leaves job {node.job} at its next checkpoint"
    elif what == "remove" and node.job:
        then += f"; job {node.job} goes on without it"
    return f"node {node.name} {then}"
