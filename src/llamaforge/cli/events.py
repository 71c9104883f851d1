"""`llamaforge events`: what has happened in the fleet, with reasons; survives every restart.

llamaforge events -n 20
llamaforge events -f --node box2
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import aclosing
from pathlib import Path

import click

from llamaforge.cli.asking import ask, fleet_option, json_option, put
from llamaforge.cli.names import JobId, NodeName, find_job, find_node
from llamaforge.cli.words import first_line
from llamaforge.errors import UserError
from llamaforge.wire.api import Event
from llamaforge.wire.client import FleetClient

SHOWN = 50
"""Events that are shown unless asked otherwise."""


@click.command("events")
@click.option("-f", "--follow", is_flag=True, help="Wait for more, until Ctrl-C.")
@click.option("--job", type=JobId(), metavar="ID", help="Only events of this job.")
@click.option("--node", type=NodeName(), metavar="NAME", help="Only events of this node.")
@click.option(
    *("-n", "--lines", "last"),
    type=click.IntRange(0),
    metavar="N",
    default=SHOWN,
    show_default=True,
    help="Show the last N.",
)
@click.option("-a", "--all", "everything", is_flag=True, help="Show all since the first one.")
@fleet_option
@json_option
def command(
    follow: bool,
    job: str | None,
    node: str | None,
    last: int,
    everything: bool,
    fleet: Path | None,
    as_json: bool,
) -> None:
    """Show what has happened in the fleet, and why."""
    if job and node:
        raise UserError("--job and --node can't be given together", hint="give one of them")

    async def run(client: FleetClient) -> None:
        kind, subject = await _about(client, job, node)
        held: deque[Event] = deque(maxlen=None if everything else last)
        number = 0
        async with aclosing(client.events(kind=kind, subject=subject)) as past:
            async for event in past:
                number = event.number
                held.append(event)
        for event in held:
            _show(event, as_json=as_json)
        if follow:
            async with aclosing(
                client.events(number, follow=True, kind=kind, subject=subject)
            ) as more:
                async for event in more:
                    _show(event, as_json=as_json)

    ask(fleet, run)


async def _about(client: FleetClient, job: str | None, node: str | None) -> tuple[str, str]:
    """Kind and subject of the events that are wanted. A node may have been removed long ago."""
    if job is not None:
        return "job", (await find_job(client, job)).id
    if node is not None:
        async with aclosing(client.events(kind="node", subject=node)) as events:
            async for _ in events:
                return "node", node
        return "node", (await find_node(client, node)).name
    return "", ""


def _show(event: Event, *, as_json: bool) -> None:
    if as_json:
        put(event)
    else:
        click.echo(line(event))


def line(event: Event) -> str:
    """An event for a person: `2026-01-31 12:00:00  job tiny-3f2a  running: 2 ranks`."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.time))
    reason = f": {first_line(event.reason)}" if event.reason else ""
    by = f" (by {event.by})" if event.by else ""
    subject = event.subject if event.subject != event.kind else ""
    return f"{when}  {f'{event.kind} {subject}'.rstrip()}  {event.what}{reason}{by}"
