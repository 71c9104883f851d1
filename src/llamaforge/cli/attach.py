"""`llamaforge attach JOB`: watches a job that somebody has submitted; leaving does not end it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from llamaforge.cli.asking import fleet_option, json_option
from llamaforge.cli.ending import say_detached, say_end
from llamaforge.cli.fetching import fetch
from llamaforge.cli.following import Outcome, catch_up, watch
from llamaforge.cli.job_folder import RUNS
from llamaforge.cli.names import JobId, find_job
from llamaforge.cli.progress import View, status_line, view_for
from llamaforge.cli.tally import Tally
from llamaforge.wire.api import JobStatus
from llamaforge.wire.client import FleetClient
from llamaforge.wire.updates import Ended


@click.command("attach")
@click.argument("job", type=JobId(running=True))
@click.option("-v", "--verbose", is_flag=True, help="Show what the ranks print, too.")
@fleet_option
@json_option
def command(job: str, verbose: bool, fleet: Path | None, as_json: bool) -> int:
    """Watch a job; Ctrl-C leaves it alone.

    What happened before is summed up in one line. At the end the job's files are fetched into
    runs/JOB where the coordinator keeps them in a folder of its own.
    """
    with view_for(as_json=as_json, verbose=verbose) as view:
        try:
            job_id, outcome = asyncio.run(_attach(FleetClient.open(fleet), job, view))
        except KeyboardInterrupt:  # before anything was shown: it detaches then, too
            job_id, outcome = job, None
    if outcome is None:
        say_detached(job_id, as_json=as_json)
        return 0
    return say_end(outcome, as_json=as_json)


async def _attach(client: FleetClient, name: str, view: View) -> tuple[str, Outcome | None]:
    async with client:
        client.tell = view.say
        job = await find_job(client, name)
        tally = Tally(job.total_steps)
        position = await catch_up(client, job.id, tally)
        view.begin(tally)
        so_far = status_line(tally)
        view.say(f"job {job.id} is {tally.state.value}" + (f": {so_far}" if so_far else ""))
        ended = tally.ended
        if ended is None:
            watched = await watch(client, job.id, tally, view, position=position, only_detach=True)
            ended = watched.ended
        if ended is None:
            return job.id, None
        return job.id, await _brought(client, job, tally, ended, view)


async def _brought(
    client: FleetClient, job: JobStatus, tally: Tally, ended: Ended, view: View
) -> Outcome:
    """The job's end, with its files here."""
    folder = Path(ended.output_dir or job.output_dir)
    if client.keeps_folders:
        folder = RUNS / job.id
        await fetch(
            client, job.id, folder, tell=lambda done, total: view.moved("download", done, total)
        )
    return Outcome(
        job_id=job.id,
        tally=tally,
        ended=ended,
        interrupted=False,
        folder=folder,
        resumable=True,
    )
