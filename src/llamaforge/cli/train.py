"""`llamaforge train`: fine-tunes a model on the fleet, or on this machine where no fleet runs.

llamaforge train --model tiny --dataset rows.jsonl --epochs 2
llamaforge train job.yaml --learning-rate 1e-4
llamaforge train job.yaml --dry-run
llamaforge train job.yaml --detach
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamaforge.cli.options import GroupedCommand, job_spec_from, with_job_params

if TYPE_CHECKING:
    from llamaforge.cli.following import Outcome
    from llamaforge.cli.progress import View
    from llamaforge.spec.job import JobSpec


@click.command("train", cls=GroupedCommand)
@with_job_params
@click.option("--dry-run", is_flag=True, help="Show what would be trained, and leave nothing.")
@click.option("--detach", is_flag=True, help="Return when the job is queued.")
@click.option("--fleet", type=click.Path(path_type=Path), metavar="FILE", help="Fleet file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option("-v", "--verbose", is_flag=True, help="Show what the ranks print, too.")
def command(
    job_file: str | None,
    dry_run: bool,
    detach: bool,
    fleet: Path | None,
    as_json: bool,
    verbose: bool,
    **values: Any,
) -> int:
    """Fine-tune a model, on the fleet or on this machine.

    Options may also stand in a job file (YAML or TOML); options here win.
    """
    spec = job_spec_from(job_file, values)
    if dry_run:
        from llamaforge.cli.dry_run import show

        show(spec, as_json=as_json)
        return 0
    if detach:
        from llamaforge.cli.submit import submit_spec

        submit_spec(spec, fleet, as_json=as_json)
        return 0
    from llamaforge.cli.progress import view_for

    with view_for(as_json=as_json, verbose=verbose) as view:
        job_id, outcome = _train(spec, fleet, view)
    from llamaforge.cli.ending import say_detached, say_end

    if outcome is None:
        say_detached(job_id, as_json=as_json)
        return 0
    return say_end(outcome, as_json=as_json)


def _train(spec: JobSpec, fleet: Path | None, view: View) -> tuple[str, Outcome | None]:
    """Runs the job to its end, or until the person detaches."""
    from llamaforge.cli.launch import any_fleet, go_on, held_job, prepare, run_job

    earlier = held_job(spec, fleet)
    if earlier is not None:
        client, job_id = earlier
        return job_id, go_on(job_id, spec, client, view)
    prepared = prepare(spec)
    for note in prepared.notes:
        view.say(note)
    with any_fleet(view.say, fleet) as client:
        return prepared.job.id, run_job(prepared, client, view)
