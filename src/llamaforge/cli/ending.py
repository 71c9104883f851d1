"""What a verb that has watched a job says when it is over, and its exit code."""

from __future__ import annotations

import click

from llamaforge.cli import summary
from llamaforge.cli.asking import put
from llamaforge.cli.failures import INTERRUPTED
from llamaforge.cli.following import Outcome, detached_lines, raise_if_failed
from llamaforge.spec.states import JobState


def say_end(outcome: Outcome, *, as_json: bool) -> int:
    """Prints the summary of a job that has ended.

    Returns:
        The exit code: 0 for a job that is done, 1 for one that was stopped by somebody else,
        130 for one that this command has stopped.

    Raises:
        UserError, JobFailed: the job has failed.
    """
    raise_if_failed(outcome)
    said = summary.summary(outcome)
    if as_json:
        put(said)
    else:
        click.echo("\n".join(summary.lines(said)))
    if outcome.ended.state is JobState.DONE:
        return 0
    return INTERRUPTED if outcome.interrupted else 1


def say_detached(job_id: str, *, as_json: bool) -> None:
    """Tells a person who has detached how to find the job again."""
    if as_json:
        put({"type": "detached", "job": job_id})
    else:
        click.echo("\n".join(detached_lines(job_id)))
