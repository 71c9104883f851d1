"""Watching a job of a fleet until it ends, or until the person who watches has seen enough."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from llamaforge.cli.interrupts import Interrupts
from llamaforge.cli.keeping import Keeping
from llamaforge.cli.progress import View
from llamaforge.cli.tally import Tally
from llamaforge.errors import FleetError, JobFailed, UserError
from llamaforge.spec.job import JobSpec
from llamaforge.spec.states import JobState
from llamaforge.wire.client import FleetClient
from llamaforge.wire.updates import Ended


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A job that has ended, however it did."""

    job_id: str
    tally: Tally
    ended: Ended
    interrupted: bool
    """Whether this command was asked to stop it."""
    folder: Path
    """The job's folder, where this person finds it."""
    spec: JobSpec | None = None
    """What was asked for, where this command asked for it."""
    resumable: bool = False
    """Whether `llamaforge resume` is the way to go on with it."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """How watching has ended. Without `ended` the job goes on."""

    ended: Ended | None
    cancelled: bool = False


async def watch(
    client: FleetClient,
    job_id: str,
    tally: Tally,
    view: View,
    *,
    position: int = 0,
    only_detach: bool = False,
) -> Watched:
    """Shows a job until it ends or the person detaches.

    Args:
        client: the fleet's client; open.
        job_id: the job.
        tally: takes each update before the view shows it.
        view: shows the updates.
        position: number of the first update that is shown.
        only_detach: Ctrl-C leaves the job alone.

    Raises:
        FleetError: the coordinator stays away, or a private fleet can't be kept alive.
        asyncio.CancelledError: interrupted three times.
    """

    async def show() -> None:
        async with aclosing(client.stream(job_id, position)) as stream:
            async for numbered in stream:
                tally.take(numbered.update)
                view.show(numbered.update)

    client.tell = view.say
    with Interrupts(client, job_id, view, only_detach=only_detach) as interrupts:
        async with Keeping(client.keeper, view.say):
            showing = asyncio.ensure_future(show())
            interrupts.leave = showing.cancel
            try:
                await showing
            except asyncio.CancelledError:
                if not interrupts.detached:
                    raise
                return Watched(ended=None)
    if tally.ended is None:
        raise FleetError(f"the stream of job {job_id} ended before the job did")
    return Watched(ended=tally.ended, cancelled=interrupts.cancelled)


async def catch_up(client: FleetClient, job_id: str, tally: Tally) -> int:
    """Sums up what has happened to a job so far.

    Returns:
        The number of the update that comes next.

    Raises:
        FleetError: the job is not known, or the coordinator stays away.
    """
    position = 0
    async with aclosing(client.history(job_id)) as history:
        async for numbered in history:
            tally.take(numbered.update)
            position = numbered.number + 1
    return position


def detached_lines(job_id: str) -> list[str]:
    """What to tell a person who leaves a job to itself."""
    return [
        f"job {job_id} goes on without this terminal",
        f"  watch it  llamaforge attach {job_id}",
        f"  its lines llamaforge logs -f {job_id}",
        f"  end it    llamaforge cancel {job_id}",
    ]


def raise_if_failed(outcome: Outcome) -> None:
    """Turns a failed job into the error that a person sees.

    Raises:
        UserError: the person who asked can fix it.
        JobFailed: the job failed otherwise.
    """
    ended = outcome.ended
    if ended.state is not JobState.FAILED:
        return
    kind = UserError if ended.user_error else JobFailed
    raise kind(f"job {outcome.job_id} failed: {ended.reason}", hint=ended.hint)
