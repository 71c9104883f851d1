"""`llamaforge cancel JOB…`: ends jobs; a training job saves a checkpoint first."""

from __future__ import annotations

from pathlib import Path

import click

from llamaforge.cli.asking import ask, dry_run_option, fleet_option, json_option, put
from llamaforge.cli.names import JobId, one_job
from llamaforge.errors import UserError
from llamaforge.spec.states import JobState
from llamaforge.wire.api import JobStatus
from llamaforge.wire.client import FleetClient


@click.command("cancel")
@click.argument("jobs", nargs=-1, required=True, type=JobId(running=True), metavar="JOB...")
@click.option("--now", is_flag=True, help="End it at once, without a checkpoint.")
@click.option("--reason", metavar="TEXT", default="cancelled", help="Kept with the job.")
@dry_run_option
@fleet_option
@json_option
def command(
    jobs: tuple[str, ...],
    now: bool,
    reason: str,
    dry_run: bool,
    fleet: Path | None,
    as_json: bool,
) -> None:
    """Stop jobs; `llamaforge resume` goes on with one.

    A job saves a checkpoint at its next step and leaves. Asked again, it is ended at once.
    """

    async def stop(client: FleetClient) -> list[JobStatus]:
        meant = chosen(await client.jobs(), jobs)
        for job in meant:
            if not dry_run:
                await client.stop(job.id, reason, now=now)
        return meant

    for job in ask(fleet, stop):
        if as_json:
            put({"type": "cancelled", "job": job.id, "now": now, "dry_run": dry_run})
        else:
            click.echo(("dry run: " if dry_run else "") + sentence(job, now=now))


def chosen(known: tuple[JobStatus, ...], names: tuple[str, ...]) -> list[JobStatus]:
    """The jobs that are meant, each once; nothing is stopped unless all of them can be.

    Raises:
        UserError: one is not known, or has ended.
    """
    meant = {job.id: job for job in (one_job(known, name) for name in names)}
    for job in meant.values():
        if job.state.final:
            raise UserError(
                f"job {job.id} has ended already: it is {job.state.value}",
                hint="`llamaforge jobs` lists those that run",
            )
    return list(meant.values())


def sentence(job: JobStatus, *, now: bool) -> str:
    """What follows, for a person."""
    if job.state is JobState.QUEUED:
        return f"job {job.id} leaves the queue"
    if now:
        return f"job {job.id} ends at once" + (f", at step {job.step}" if job.step else "")
    if job.kind == "run":
        return f"the ranks of job {job.id} get SIGTERM; it ends when they have"
    return f"job {job.id} saves a checkpoint at its next step and stops"
