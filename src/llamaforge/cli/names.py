"""From what a person calls a job or a node to the one that is meant; Tab offers them.

The beginning or the end of a job's id is enough where only one job has it.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import click
from click.shell_completion import CompletionItem

from llamaforge.errors import LlamaForgeError, UserError
from llamaforge.wire.api import JobStatus, NodeStatus, Status
from llamaforge.wire.client import FleetClient

JobOrNode = TypeVar("JobOrNode", JobStatus, NodeStatus)

TAB_SECONDS = 1.0
"""How long Tab may wait for the fleet."""
NAMED = 5
"""Names that an error lists at most."""


def one_job(jobs: Sequence[JobStatus], name: str) -> JobStatus:
    """The job that a person means.

    Raises:
        UserError: none has this id, or several begin or end with it.
    """
    by_id = {job.id: job for job in jobs}
    if name in by_id:
        return by_id[name]
    for fits in (str.startswith, str.endswith):
        found = [job_id for job_id in by_id if name and fits(job_id, name)]
        if len(found) == 1:
            return by_id[found[0]]
        if found:
            raise UserError(
                f"{name!r} may be any of {len(found)} jobs: {_some(found)}",
                hint="write more of its id; `llamaforge jobs --all` lists them",
            )
    raise UserError(f"no job {name!r} on this fleet", hint=_meant(name, list(by_id), "jobs --all"))


def one_node(nodes: Sequence[NodeStatus], name: str) -> NodeStatus:
    """The node of this name.

    Raises:
        UserError: the fleet has none.
    """
    for node in nodes:
        if node.name == name:
            return node
    names = [node.name for node in nodes]
    raise UserError(f"no node {name!r} in this fleet", hint=_meant(name, names, "nodes"))


async def find_job(client: FleetClient, name: str) -> JobStatus:
    """Asks the fleet for its jobs, and finds the one that is meant.

    Raises:
        UserError: as `one_job`.
        FleetError: the coordinator is gone.
    """
    return one_job(await client.jobs(), name)


async def find_node(client: FleetClient, name: str) -> NodeStatus:
    """Asks the fleet for its nodes, and finds one by its name.

    Raises:
        UserError: as `one_node`.
        FleetError: the coordinator is gone.
    """
    return one_node((await client.status()).nodes, name)


def _meant(name: str, names: list[str], verb: str) -> str:
    lists = f"`llamaforge {verb}` lists them"
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]}? {lists}"
    return f"there are {_some(names)}; {lists}" if names else "there is none yet"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[-NAMED:]) + more


class JobId(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.4
    """A job of the fleet; Tab completes its id."""

    name = "job"

    def __init__(self, *, running: bool = False) -> None:
        self._running = running

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Offers the ids of the fleet's jobs, newest first."""
        jobs = [
            job
            for job in _asked(ctx, lambda client: client.jobs(ended=not self._running))
            if not (self._running and job.state.final)
        ]
        return [
            CompletionItem(job.id, help=job.state.value)
            for job in reversed(jobs)
            if job.id.startswith(incomplete)
        ]


class NodeName(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.4
    """A node of the fleet; Tab completes its name."""

    name = "node"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Offers the names of the fleet's nodes."""

        async def nodes(client: FleetClient) -> tuple[NodeStatus, ...]:
            status: Status = await client.status()
            return status.nodes

        return [
            CompletionItem(node.name, help=node.state.value)
            for node in _asked(ctx, nodes)
            if node.name.startswith(incomplete)
        ]


def _asked(
    ctx: click.Context, question: Callable[[FleetClient], Awaitable[Iterable[JobOrNode]]]
) -> Iterable[JobOrNode]:
    """What the fleet answers at once; nothing when there is none, or it is slow."""

    async def run() -> Iterable[JobOrNode]:
        path = next((c.params["fleet"] for c in _up(ctx) if c.params.get("fleet")), None)
        async with FleetClient.open(Path(path) if path else None) as client:
            return await question(client)

    try:
        return asyncio.run(asyncio.wait_for(run(), TAB_SECONDS))
    except (LlamaForgeError, OSError, asyncio.TimeoutError):
        return ()


def _up(ctx: click.Context | None) -> Iterable[click.Context]:
    while ctx is not None:
        yield ctx
        ctx = ctx.parent
