"""A fleet of plain child processes on loopback: no root, no systemd.

`llamaforge up` keeps one running; `llamaforge train` makes a private one where no fleet runs.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from llamaforge.wire.client import FleetClient


class EmbeddedFleet:
    """A coordinator and its workers as child processes; a context manager.

        with EmbeddedFleet(workers=1, registered=False) as fleet:
            async with fleet.client() as client: …

    Inside the block all workers wait for jobs. At its end, on an exception and on SIGTERM all are
    stopped by process id; should this process be killed, the kernel kills them.

    Args:
        workers: how many; each is a node of its own.
        registered: use this user's fleet file, so that other commands find the fleet. Otherwise
            everything stands in a private temporary folder that is removed at the end.
        port: the coordinator's port; 0 takes a free one.
        ranks: ranks per worker and job; None: the machine's cores shared out over the workers.
        cache_dir: blobs and tokenised rows; by default this user's cache.
        ready_seconds: how long the workers may take until they wait for a job.
    """

    fleet_file: Path
    """The fleet file; exists inside the block."""

    def __init__(
        self,
        *,
        workers: int = 1,
        registered: bool = True,
        port: int = 0,
        ranks: int | None = None,
        cache_dir: Path | None = None,
        ready_seconds: float = 30.0,
    ) -> None:
        raise NotImplementedError

    def __enter__(self) -> EmbeddedFleet:
        """Starts all processes and waits until the workers wait for a job.

        Raises:
            UserError: a fleet runs already, or the port is taken.
            FleetError: a process ended or took too long; holds its last lines.
        """
        raise NotImplementedError

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops all processes: SIGTERM, and after a while SIGKILL."""
        raise NotImplementedError

    def client(self) -> FleetClient:
        """A client of this fleet."""
        return FleetClient.open(self.fleet_file)
