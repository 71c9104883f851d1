"""`llamaforge status`: the fleet's nodes and jobs, as a table or as JSON."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import click
import msgspec

from llamaforge.wire.api import JobStatus, NodeStatus, Status
from llamaforge.wire.client import FleetClient


@click.command("status")
@click.option("--fleet", type=click.Path(path_type=Path), metavar="FILE", help="Fleet file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(fleet: Path | None, as_json: bool) -> None:
    """Show the fleet's nodes and jobs."""
    status = asyncio.run(_ask(FleetClient.open(fleet)))
    if as_json:
        click.echo(msgspec.json.encode(status))
    else:
        show(status, time.time())


async def _ask(client: FleetClient) -> Status:
    async with client:
        return await client.status()


def show(status: Status, now: float) -> None:
    """Prints nodes and jobs as tables.

    Args:
        status: what the coordinator said.
        now: Unix time in seconds.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console()
    nodes = Table("node", "state", "since", "ranks", "cores", "address", box=None)
    for node in status.nodes:
        nodes.add_row(*_node(node, now))
    console.print(nodes if status.nodes else "no worker has connected yet")
    if status.jobs:
        jobs = Table("job", "state", "since", "step", "folder", box=None)
        for job in status.jobs:
            jobs.add_row(*_job(job, now))
        console.print()
        console.print(jobs)


def _node(node: NodeStatus, now: float) -> tuple[str, ...]:
    state = f"{node.state.value}: {node.reason}" if node.reason else node.state.value
    return (
        node.name,
        state,
        ago(now - node.since),
        str(node.ranks or "-"),
        str(node.cores),
        node.address,
    )


def _job(job: JobStatus, now: float) -> tuple[str, ...]:
    reason = job.reason.splitlines()[0] if job.reason else ""
    state = f"{job.state.value}: {reason}" if reason else job.state.value
    step = f"{job.step}/{job.total_steps}"
    return job.id, state, ago(now - job.since), step, job.output_dir


def ago(seconds: float) -> str:
    """A time span in its largest unit, such as `5 min`."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
