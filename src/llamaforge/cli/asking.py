"""What verbs that ask the fleet have in common: two options, one short connection, one table."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from llamaforge.wire.client import FleetClient

Answer = TypeVar("Answer")


def fleet_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: `--fleet FILE`, which is also found on the group that a sub-verb belongs to."""
    return click.option(
        "--fleet",
        type=click.Path(path_type=Path),
        metavar="FILE",
        callback=_or_of_the_group,
        help="Fleet file, in place of the fleet that is found.",
    )(command)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: `--json`."""
    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        callback=_or_of_the_group,
        help="Print one JSON object a line.",
    )(command)


def dry_run_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: `--dry-run`."""
    return click.option(
        "--dry-run", is_flag=True, help="Say what would happen, and change nothing."
    )(command)


def _or_of_the_group(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """The option's value, else the one that stands before the sub-verb."""
    if not value and ctx.parent is not None and param.name in ctx.parent.params:
        return ctx.parent.params[param.name]
    return value


def ask(fleet: Path | None, action: Callable[[FleetClient], Awaitable[Answer]]) -> Answer:
    """Does something with the fleet over one connection.

    Args:
        fleet: its fleet file; None: the fleet that is found.
        action: what to do.

    Raises:
        FleetError: no fleet runs, or it can't be reached.
    """

    async def run() -> Answer:
        async with FleetClient.open(fleet) as client:
            client.tell = lambda text: click.echo(text, err=True)
            return await action(client)

    return asyncio.run(run())


def put(value: Any) -> None:
    """Prints one JSON object on a line of its own, at once."""
    click.echo(msgspec.json.encode(value))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows as lines with columns of one width, as wide as they are: nothing is cut."""
    whole = [tuple(head), *(tuple(text or "-" for text in row) for row in rows)]
    widths = [max(len(text) for text in column) for column in zip(*whole, strict=True)]
    return [
        "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
        for row in whole
    ]
