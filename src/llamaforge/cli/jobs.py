"""`llamaforge jobs`: what waits and runs on the fleet, and with `--all` what has ended."""

from __future__ import annotations

import time
from pathlib import Path

import click

from llamaforge.cli.asking import ask, fleet_option, json_option, put, table
from llamaforge.cli.words import ago, first_line
from llamaforge.wire.api import JobStatus

HEAD = ("job", "state", "step", "nodes", "who", "since", "reason")


@click.command("jobs")
@click.option("-a", "--all", "ended", is_flag=True, help="Show jobs that have ended, too.")
@fleet_option
@json_option
def command(ended: bool, fleet: Path | None, as_json: bool) -> None:
    """List the fleet's jobs."""
    jobs = ask(fleet, lambda client: client.jobs(ended=ended))
    if as_json:
        for job in jobs:
            put(job)
    elif jobs:
        click.echo("\n".join(lines(jobs, time.time())))
    else:
        more = "" if ended else "; those that have ended: llamaforge jobs --all"
        click.echo(f"no job waits or runs{more}" if not ended else "no job yet")


def lines(jobs: tuple[JobStatus, ...], now: float) -> list[str]:
    """Jobs as a table.

    Args:
        jobs: oldest first.
        now: Unix time in seconds.
    """
    return table(HEAD, (_row(job, now) for job in jobs))


def _row(job: JobStatus, now: float) -> tuple[str, ...]:
    return (
        job.id,
        job.state.value,
        f"{job.step}/{job.total_steps}" if job.total_steps else "",
        ",".join(job.nodes),
        job.submitter,
        ago(now - job.since),
        first_line(job.reason),
    )
