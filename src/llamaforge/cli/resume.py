"""`llamaforge resume JOB`: a job that was stopped or has failed goes on where it was."""

from __future__ import annotations

from pathlib import Path

import click

from llamaforge.cli.asking import ask, fleet_option, json_option, put
from llamaforge.cli.names import JobId, find_job
from llamaforge.errors import UserError
from llamaforge.spec.states import JobState
from llamaforge.wire.api import JobStatus
from llamaforge.wire.client import FleetClient


@click.command("resume")
@click.argument("job", type=JobId())
@fleet_option
@json_option
def command(job: str, fleet: Path | None, as_json: bool) -> None:
    """Queue a stopped or failed job again, from its newest checkpoint."""

    async def resume(client: FleetClient) -> JobStatus:
        found = await find_job(client, job)
        refuse(found)
        await client.resume(found.id)
        return found

    found = ask(fleet, resume)
    if as_json:
        put({"type": "resumed", "job": found.id})
    else:
        click.echo(f"job {found.id} is queued again; watch it: llamaforge attach {found.id}")


def refuse(job: JobStatus) -> None:
    """Raises UserError for a job that has nothing to go on with."""
    if not job.state.final:
        raise UserError(
            f"job {job.id} has not ended: it is {job.state.value}",
            hint=f"watch it: llamaforge attach {job.id}",
        )
    if job.state is JobState.DONE:
        raise UserError(f"job {job.id} is done", hint="submit another one: llamaforge submit")
