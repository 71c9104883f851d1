"""`llamaforge up`: a coordinator and workers on this machine, until Ctrl-C or `llamaforge down`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import click

from llamaforge import paths
from llamaforge.cli.child import Child
from llamaforge.cli.embedded import EmbeddedFleet, refuse_second
from llamaforge.errors import FleetError
from llamaforge.spec.fleet import CONTROL_PORT
from llamaforge.spec.states import NodeState
from llamaforge.wire import fleet_file
from llamaforge.wire.api import Status
from llamaforge.wire.client import FleetClient

READY_SECONDS = 60.0
LOOK_SECONDS = 0.5
"""Between two looks at the fleet."""
WORDS = {
    NodeState.READY: "waits for a job",
    NodeState.BUSY: "is busy",
    NodeState.DISCONNECTED: "is disconnected",
    NodeState.LOST: "is lost",
    NodeState.DRAINING: "takes no more jobs after this one",
    NodeState.CORDONED: "takes no jobs",
}


@click.command("up")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    metavar="N",
    default=2,
    show_default=True,
    help="Workers to start; each is a node of its own and gets its share of the cores.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    default=CONTROL_PORT,
    show_default=True,
    help="The coordinator's port; 0 takes a free one.",
)
@click.option(
    "--ranks",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Ranks per worker and job; by default by the cores.",
)
@click.option("--detach", is_flag=True, help="Return when the workers wait; `down` stops them.")
def command(workers: int, port: int, ranks: int | None, detach: bool) -> None:
    """Start a coordinator and workers on this machine."""
    if detach:
        _detach(workers, port, ranks)
        return
    try:
        with EmbeddedFleet(workers=workers, port=port, ranks=ranks) as fleet:
            where = fleet_file.read(fleet.fleet_file)
            click.echo(f"coordinator listens on {where.host}:{where.port} (pid {where.pid})")
            _watch_until_interrupted(fleet)
    except KeyboardInterrupt:  # the second one: the kernel ends what is left
        raise click.Abort from None
    click.echo("stopped")


def _watch_until_interrupted(fleet: EmbeddedFleet) -> None:
    try:
        asyncio.run(_watch(fleet))
    except KeyboardInterrupt:
        click.echo("stopping; a running job saves a checkpoint first")


async def _watch(fleet: EmbeddedFleet) -> None:
    """Prints a line per change, and starts workers again that were killed; for ever."""
    changes = Changes(click.echo)
    async with fleet.client() as client:
        while True:
            for name in fleet.revive():
                click.echo(f"{name} has ended; it is started again")
            with suppress(FleetError):  # the coordinator is just starting
                changes.look(await client.status())
            await asyncio.sleep(LOOK_SECONDS)


class Changes:
    """Says what has changed between two looks at a fleet.

    Args:
        say: takes one line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._seen: dict[str, str] = {}

    def look(self, status: Status) -> None:
        """Says what is different from the last time."""
        for node in status.nodes:
            detail = f": {node.reason}" if node.reason else ""
            self._note(node.name, f"{node.name} {WORDS[node.state]}{detail}")
        for job in status.jobs:
            detail = f": {job.reason.splitlines()[0]}" if job.reason else ""
            self._note(f"job {job.id}", f"job {job.id} is {job.state.value}{detail}")

    def _note(self, what: str, line: str) -> None:
        if self._seen.get(what) != line:
            self._seen[what] = line
            self._say(line)


def _detach(workers: int, port: int, ranks: int | None) -> None:
    """Starts `llamaforge up` as a process of its own and waits until its workers wait."""
    refuse_second(fleet_file.default_path())
    args = ["up", "--workers", str(workers), "--port", str(port)]
    args += ["--ranks", str(ranks)] if ranks else []
    log = paths.state_dir() / "logs" / "up.log"
    child = Child("llamaforge up", args, log, tethered=False)
    until = time.monotonic() + READY_SECONDS
    while not _ready(workers):
        if not child.running:
            raise child.failure("has ended")
        if time.monotonic() > until:
            child.terminate()
            raise child.failure(f"was not ready within {READY_SECONDS:.0f} s")
        time.sleep(0.1)
    where = fleet_file.read(fleet_file.default_path())
    click.echo(f"coordinator listens on {where.host}:{where.port} (pid {where.pid})")
    click.echo(f"{workers} workers wait for jobs; stop them with: llamaforge down")


def _ready(workers: int) -> bool:
    """Whether all workers wait."""
    fleet = fleet_file.find()
    if fleet is None:
        return False

    async def ask() -> Status:
        async with FleetClient(fleet) as client:
            return await client.status()

    try:
        nodes = asyncio.run(ask()).nodes
    except FleetError:  # it is just starting
        return False
    return sum(node.state is NodeState.READY for node in nodes) == workers
