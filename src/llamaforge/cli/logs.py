"""`llamaforge logs JOB`: what a job's ranks have printed, and with `-f` what they print now.

llamaforge logs tiny-lora-3f2a
llamaforge logs -f 3f2a --rank 0 -n 20
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import click

from llamaforge.cli.asking import ask, fleet_option, json_option, put
from llamaforge.cli.names import JobId, find_job
from llamaforge.errors import UserError
from llamaforge.wire.api import JobStatus
from llamaforge.wire.client import FleetClient
from llamaforge.wire.updates import Ended, GenerationStarted, LogLine, NodeRanks, Numbered


@click.command("logs")
@click.argument("job", type=JobId())
@click.option("-f", "--follow", is_flag=True, help="Wait for more, until the job ends.")
@click.option("--rank", type=click.IntRange(0), metavar="N", help="Only this rank's lines.")
@click.option("--node", metavar="NAME", help="Only lines of ranks on this node.")
@click.option("-n", "--lines", "last", type=click.IntRange(0), metavar="N", help="Only the last N.")
@fleet_option
@json_option
def command(
    job: str,
    follow: bool,
    rank: int | None,
    node: str | None,
    last: int | None,
    fleet: Path | None,
    as_json: bool,
) -> None:
    """Show what a job's ranks print, from the beginning.

    Each line begins with its node and rank: `box2/3| …`.
    """
    wanted = Wanted(rank, node)
    show = _put if as_json else _print

    async def run(client: FleetClient) -> None:
        found = await find_job(client, job)
        position, ended = await past(client, found, wanted, last, show)
        if not (wanted.seen or as_json):
            click.echo(
                f"no line of job {found.id} so far; how it goes: llamaforge attach", err=True
            )
        if follow and ended is None:
            ended = await _to_come(client, found.id, position, wanted, show)
        if follow and ended is not None and not as_json:
            click.echo(f"job {found.id} is {ended.state.value}", err=True)

    ask(fleet, run)


class Wanted:
    """Whose lines a person wants to see; knows whether there is anybody of that name.

    Args:
        rank: only this rank's; None: all.
        node: only those of this node; None: all.
    """

    def __init__(self, rank: int | None, node: str | None) -> None:
        self._rank, self._node = rank, node
        self._ranks = 0
        self._nodes: dict[str, None] = {}
        self.seen = False
        """Whether there was a line that is wanted."""

    def take(self, members: tuple[NodeRanks, ...]) -> None:
        """Learns who is in a generation."""
        self._ranks = max([self._ranks, *(m.first_rank + m.count for m in members)])
        self._nodes |= dict.fromkeys(member.node for member in members)

    def has(self, line: LogLine) -> bool:
        """Whether the line is wanted."""
        wanted = self._rank in (None, line.rank) and self._node in (None, line.node)
        self.seen = self.seen or wanted
        return wanted

    def check(self, job_id: str) -> None:
        """Raises UserError when the job never had such a rank or node, and has had others."""
        if self._rank is not None and 0 < self._ranks <= self._rank:
            raise UserError(
                f"job {job_id} has no rank {self._rank}",
                hint=f"its ranks are 0 to {self._ranks - 1}",
            )
        if self._node is not None and self._nodes and self._node not in self._nodes:
            raise UserError(
                f"job {job_id} never ran on a node {self._node!r}",
                hint=f"it ran on {', '.join(self._nodes)}",
            )


Show = Callable[[Numbered, LogLine], None]


async def past(
    client: FleetClient, job: JobStatus, wanted: Wanted, last: int | None, show: Show
) -> tuple[int, Ended | None]:
    """Shows the lines so far.

    Args:
        client: the fleet's client; open.
        job: the job.
        wanted: whose lines; learns who took part.
        last: how many of them; None: all.
        show: prints one.

    Returns:
        The number of the update that comes next, and the job's end if it has one.

    Raises:
        UserError: the wanted rank or node never took part.
    """
    position, ended = 0, None
    held: deque[tuple[Numbered, LogLine]] = deque(maxlen=last)
    async with aclosing(client.history(job.id)) as history:
        async for numbered in history:
            position, update = numbered.number + 1, numbered.update
            ended = update if isinstance(update, Ended) else None
            if isinstance(update, GenerationStarted):
                wanted.take(update.nodes)
            elif isinstance(update, LogLine) and wanted.has(update):
                if last is None:
                    show(numbered, update)
                else:
                    held.append((numbered, update))
    wanted.check(job.id)
    for numbered, line in held:
        show(numbered, line)
    return position, ended


async def _to_come(
    client: FleetClient, job_id: str, position: int, wanted: Wanted, show: Show
) -> Ended | None:
    """Shows lines as they come, until the job's end."""
    ended = None
    kinds = ("log", "generation", "ended")
    async with aclosing(client.stream(job_id, position, kinds=kinds)) as stream:
        async for numbered in stream:
            update = numbered.update
            ended = update if isinstance(update, Ended) else None
            if isinstance(update, GenerationStarted):
                wanted.take(update.nodes)
                wanted.check(job_id)
            elif isinstance(update, LogLine) and wanted.has(update):
                show(numbered, update)
    return ended


def _print(_: Numbered, line: LogLine) -> None:
    click.echo(f"{line.node}/{line.rank}| {line.text.rstrip()}")


def _put(numbered: Numbered, line: LogLine) -> None:
    said: dict[str, Any] = {"node": line.node, "rank": line.rank, "text": line.text}
    put({"type": "log", "number": numbered.number, **said})
