"""`llamaforge submit`: like `train`, but returns at once; prints the job's id.

llamaforge submit --model tiny --dataset rows.jsonl --priority 5
llamaforge logs -f $(llamaforge submit job.yaml)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamaforge.cli.options import GroupedCommand, job_spec_from, with_job_params

if TYPE_CHECKING:
    from llamaforge.spec.job import JobSpec


@click.command("submit", cls=GroupedCommand)
@with_job_params
@click.option("--dry-run", is_flag=True, help="Show what would be trained, and leave nothing.")
@click.option("--fleet", type=click.Path(path_type=Path), metavar="FILE", help="Fleet file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def command(
    job_file: str | None, dry_run: bool, fleet: Path | None, as_json: bool, **values: Any
) -> None:
    """Queue a fine-tuning job on the fleet, print its id, and return.

    Options are those of `train`, on the line or in a job file (YAML or TOML, same names).
    """
    spec = job_spec_from(job_file, values)
    if dry_run:
        from llamaforge.cli.dry_run import show

        show(spec, as_json=as_json)
    else:
        submit_spec(spec, fleet, as_json=as_json)


def submit_spec(spec: JobSpec, fleet: Path | None, *, as_json: bool) -> None:
    """Queues a job and prints its id on standard output; everything else goes to standard error.

    Raises:
        FleetError: no fleet runs, or it can't be reached.
        UserError: the job can't be done as asked.
    """
    import sys

    from llamaforge.cli.asking import ask, put
    from llamaforge.cli.launch import held_job, prepare, submit
    from llamaforge.cli.progress import LineView
    from llamaforge.wire.client import FleetClient

    client = FleetClient.open(fleet)  # before data and model are read for nothing
    view = LineView(sys.stderr)
    earlier = held_job(spec, fleet)
    if earlier is not None:
        job_id = earlier[1]
        ask(fleet, lambda client: client.resume(job_id))
    else:
        prepared = prepare(spec)
        for note in prepared.notes:
            view.say(note)
        job_id = submit(prepared, client, view)
    if as_json:
        put({"type": "submitted", "job": job_id})
    else:
        click.echo(job_id)
        view.say(f"watch it: llamaforge attach {job_id}")
