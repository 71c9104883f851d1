"""`llamaforge fetch JOB [DIR]`: a job's files from its coordinator into a folder here."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from llamaforge.cli import words
from llamaforge.cli.asking import ask, fleet_option, json_option, put
from llamaforge.cli.fetching import CHECKPOINTS, Fetched, fetch
from llamaforge.cli.job_folder import RUNS
from llamaforge.cli.names import JobId, find_job
from llamaforge.cli.progress import JsonView, LineView, View
from llamaforge.errors import UserError
from llamaforge.wire.client import FleetClient


@click.command("fetch")
@click.argument("job", type=JobId())
@click.argument("folder", required=False, type=click.Path(path_type=Path), metavar="[DIR]")
@click.option("--checkpoints", is_flag=True, help="Fetch checkpoints, too.")
@fleet_option
@json_option
def command(
    job: str, folder: Path | None, checkpoints: bool, fleet: Path | None, as_json: bool
) -> None:
    """Copy a job's files here; by default into runs/JOB.

    A job that still runs is copied as it is now.
    """
    view: View = JsonView(sys.stdout) if as_json else LineView(sys.stderr)

    async def copy(client: FleetClient) -> Fetched:
        client.tell = view.say
        found = await find_job(client, job)
        target = folder if folder is not None else RUNS / found.id
        if not client.keeps_folders and target.resolve() == Path(found.output_dir):
            raise UserError(
                f"the folder of job {found.id} is here already: {found.output_dir}",
                hint=f"for a copy: llamaforge fetch {found.id} DIR",
            )
        return await fetch(
            client,
            found.id,
            target,
            checkpoints=target / CHECKPOINTS if checkpoints else None,
            tell=lambda done, total: view.moved("download", done, total),
        )

    fetched = ask(fleet, copy)
    if as_json:
        put(fetched)
    else:
        files, size = words.count(fetched.files, "file"), words.size(fetched.size)
        click.echo(f"{files}, {size}, in {fetched.folder}")
