"""`llamaforge status [JOB]`: the fleet's nodes and jobs, or all about one job."""

from __future__ import annotations

import time
from pathlib import Path

import click

from llamaforge.cli import jobs, nodes
from llamaforge.cli.asking import ask, fleet_option, json_option, put
from llamaforge.cli.names import JobId, find_job
from llamaforge.cli.words import ago
from llamaforge.wire.api import JobStatus, Status


@click.command("status")
@click.argument("job", required=False, type=JobId())
@fleet_option
@json_option
def command(job: str | None, fleet: Path | None, as_json: bool) -> None:
    """Show the fleet's nodes and jobs, or one job."""
    if job is not None:
        name = job
        found = ask(fleet, lambda client: find_job(client, name))
        if as_json:
            put(found)
        else:
            click.echo("\n".join(about(found, time.time())))
        return
    status = ask(fleet, lambda client: client.status())
    if as_json:
        put(status)
    else:
        click.echo("\n".join(lines(status, time.time())))


def lines(status: Status, now: float) -> list[str]:
    """Nodes and jobs as tables.

    Args:
        status: what the coordinator said.
        now: Unix time in seconds.
    """
    shown = nodes.lines(status.nodes, now) if status.nodes else ["no worker has connected yet"]
    if status.jobs:
        shown += ["", *jobs.lines(status.jobs, now)]
    return shown


def about(job: JobStatus, now: float) -> list[str]:
    """All about one job, for a person.

    Args:
        job: what the coordinator said.
        now: Unix time in seconds.
    """
    head, *more = job.reason.splitlines() or [""]
    rows = [
        ("job", job.id),
        ("state", f"{job.state.value}{f': {head}' if head else ''}"),
        *(("", line) for line in more),
        ("since", f"{ago(now - job.since)} ago"),
        ("failure", job.failure),
        ("step", f"{job.step} of {job.total_steps}" if job.total_steps else ""),
        ("nodes", ", ".join(job.nodes)),
        ("generation", str(job.generation or "")),
        ("kind", job.kind if job.kind != "train" else ""),
        ("submitted", f"{ago(now - job.submitted)} ago"),
        ("by", job.submitter),
        ("priority", str(job.priority or "")),
        ("folder", job.output_dir + (" (the coordinator's own)" if job.own_folder else "")),
    ]
    return [f"{noun:<11} {text}".rstrip() for noun, text in rows if text] + _next(job)


def _next(job: JobStatus) -> list[str]:
    """What a person may want to do now."""
    if not job.state.final:
        return [f"watch it: llamaforge attach {job.id}"]
    verbs = {"stopped": "resume", "failed": "logs", "done": "fetch" if job.own_folder else ""}
    verb = verbs[job.state.value]
    return [f"next: llamaforge {verb} {job.id}"] if verb else []
