"""`llamaforge train`: fine-tunes a model on the fleet, or on this machine where no fleet runs.

llamaforge train --model tiny --dataset rows.jsonl --epochs 2
llamaforge train job.yaml --learning-rate 1e-4
llamaforge train job.yaml --dry-run
"""

from __future__ import annotations

from typing import Any

import click

from llamaforge.cli.failures import INTERRUPTED
from llamaforge.cli.options import GroupedCommand, job_spec_from, with_job_params


@click.command("train", cls=GroupedCommand)
@with_job_params
@click.option("--dry-run", is_flag=True, help="Show what would be trained, and leave nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option("-v", "--verbose", is_flag=True, help="Show what the ranks print, too.")
def command(
    job_file: str | None, dry_run: bool, as_json: bool, verbose: bool, **values: Any
) -> int:
    """Fine-tune a model, on the fleet or on this machine.

    Options may also stand in a job file (YAML or TOML, same names); options given here win.
    """
    spec = job_spec_from(job_file, values)
    if dry_run:
        from llamaforge.cli.dry_run import show

        show(spec, as_json=as_json)
        return 0
    from llamaforge.cli import summary
    from llamaforge.cli.launch import any_fleet, prepare, raise_if_failed, run_job
    from llamaforge.cli.progress import JsonView, view_for
    from llamaforge.spec.states import JobState

    with view_for(as_json=as_json, verbose=verbose) as view:
        prepared = prepare(spec)
        for note in prepared.notes:
            view.say(note)
        with any_fleet(view.say) as client:
            outcome = run_job(prepared, client, view)
    raise_if_failed(outcome)
    said = summary.summary(outcome)
    if isinstance(view, JsonView):
        view.put(said)
    else:
        click.echo("\n".join(summary.lines(said)))
    if outcome.ended.state is JobState.DONE:
        return 0
    return INTERRUPTED if outcome.interrupted else 1
