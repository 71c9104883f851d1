"""A fleet of plain child processes on loopback: no root, no systemd.

`llamaforge up` keeps one running; `llamaforge train` makes a private one where no fleet runs.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType

from llamaforge import paths
from llamaforge.cli.child import Child
from llamaforge.cli.owner import Owner
from llamaforge.errors import FleetError, UserError
from llamaforge.spec.states import NodeState
from llamaforge.wire import fleet_file
from llamaforge.wire.api import Status
from llamaforge.wire.client import FleetClient

END_SECONDS = 75.0
"""How long workers may take to end: their ranks may be saving a checkpoint."""
COORDINATOR_END_SECONDS = 5.0
POLL_SECONDS = 0.05
HEALTHY_SECONDS = 2.0
"""A worker that ended sooner after its start would end again."""


def private_folder() -> Path:
    """A new folder for a fleet that nobody else is to find.

    In /var/tmp: checkpoints don't belong into memory, which /tmp often is, and ranks may write to
    /tmp as a whole only where nothing of the fleet stands below it.
    """
    big = Path("/var/tmp")
    chosen = None if os.environ.get("TMPDIR") or not os.access(big, os.W_OK) else big
    return Path(tempfile.mkdtemp(prefix="llamaforge-", dir=chosen))


class EmbeddedFleet:
    """A coordinator and its workers as child processes; a context manager for synchronous code.

        with EmbeddedFleet(workers=1, registered=False) as fleet:
            asyncio.run(use(fleet.client()))

    Inside the block all workers wait for jobs. At its end, on an exception and on SIGTERM all are
    stopped by process id; should this process be killed, the kernel kills them.

    Args:
        workers: how many; each is a node of its own.
        registered: use this user's fleet file, so that other commands find the fleet. Otherwise
            everything stands in a private temporary folder that is removed at the end.
        port: the coordinator's port; 0 takes a free one.
        ranks: ranks per worker and job; None: by the cores, which the workers share.
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
        self._workers, self._registered, self._port = workers, registered, port
        self._ranks, self._ready_seconds = ranks, ready_seconds
        self._cache = cache_dir or paths.cache_dir()
        self._state = paths.state_dir()
        self._coordinator: Child | None = None
        self._children: list[Child] = []
        self._owner: Owner | None = None
        self._catches = False

    @property
    def children(self) -> list[Child]:
        """The processes: the coordinator first."""
        return ([self._coordinator] if self._coordinator else []) + self._children

    def __enter__(self) -> EmbeddedFleet:
        """Starts all processes and waits until the workers wait for a job.

        Raises:
            UserError: a fleet runs already, or the port is taken.
            FleetError: a process ended or took too long; holds its last lines.
        """
        if self._registered:
            refuse_second(fleet_file.default_path())
            self._owner = Owner(self._state)
            self._owner.take()
        else:
            self._state = private_folder()
        self.fleet_file = self._state / fleet_file.NAME
        self._catch_sigterm()
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops all processes: SIGTERM, and after a while SIGKILL."""
        self._stop()

    def client(self) -> FleetClient:
        """A client of this fleet, which looks after it while it follows a job."""
        client = FleetClient.open(self.fleet_file)
        client.keeper = self.revive
        return client

    def status(self) -> Status:
        """The fleet's nodes and jobs."""

        async def ask() -> Status:
            async with self.client() as client:
                return await client.status()

        return asyncio.run(ask())

    def check(self) -> None:
        """Raises FleetError when one of the processes has ended."""
        for child in self.children:
            if not child.running:
                raise child.failure("has ended")

    def revive(self) -> list[str]:
        """Starts again what has ended; a coordinator takes its jobs up where they are.

        Returns:
            The names of what was started.

        Raises:
            FleetError: a process ends as soon as it starts.
        """
        for child in self.children:
            if not child.running and child.age < HEALTHY_SECONDS:
                raise child.failure("ends again and again")
        revived = []
        if self._coordinator is not None and not self._coordinator.running:
            self._port = fleet_file.read(self.fleet_file).port  # others know it by now
            self._coordinator = self._start_coordinator()
            revived.append(self._coordinator.name)
        for place, child in enumerate(self._children):
            if not child.running:
                self._children[place] = self._start_worker(child.name)
                revived.append(child.name)
        return revived

    # ── start ─────────────────────────────────────────────────────────────────────────────────

    def _start(self) -> None:
        until = time.monotonic() + self._ready_seconds
        self._coordinator = self._start_coordinator()
        for number in range(1, self._workers + 1):
            self._children.append(self._start_worker(f"worker-{number}"))
        self._wait(until, "does not listen", lambda: fleet_file.find(self.fleet_file) is not None)
        self._wait(until, "did not connect", self._all_wait)

    def _start_coordinator(self) -> Child:
        args = ["coordinator", "run", "--port", str(self._port)]
        return self._child("coordinator", args, self._state)

    def _start_worker(self, name: str) -> Child:
        args = ["worker", "run", "--name", name, "--fleet", str(self.fleet_file)]
        args += ["--cores", str(self._cores_of_one())]
        args += ["--ranks", str(self._ranks)] if self._ranks else []
        return self._child(name, args, self._state / "workers" / name)

    def _child(self, name: str, args: list[str], state: Path) -> Child:
        folders = ["--state-dir", str(state), "--cache-dir", str(self._cache)]
        return Child(name, [*args, *folders], self._state / "logs" / f"{name}.log")

    def _cores_of_one(self) -> int:
        return max(1, len(os.sched_getaffinity(0)) // self._workers)

    def _wait(self, until: float, complaint: str, ready: Callable[[], bool]) -> None:
        while not ready():
            self.check()
            if time.monotonic() > until:
                late = self._late()
                raise late.failure(f"{complaint} within {self._ready_seconds:.0f} s")
            time.sleep(POLL_SECONDS)

    def _all_wait(self) -> bool:
        try:
            return len(self._waiting()) == self._workers
        except FleetError:  # the coordinator is just ending; `check` says why
            return False

    def _waiting(self) -> set[str]:
        return {n.name for n in self.status().nodes if n.state is NodeState.READY}

    def _late(self) -> Child:
        """The process to show when the fleet does not get ready."""
        assert self._coordinator is not None
        if fleet_file.find(self.fleet_file) is None:
            return self._coordinator
        waiting = self._waiting()
        return next(child for child in self._children if child.name not in waiting)

    # ── end ───────────────────────────────────────────────────────────────────────────────────

    def _catch_sigterm(self) -> None:
        """Makes SIGTERM end the block like an exception, where nobody else handles it."""
        alone = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if alone and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _leave)
            self._catches = True

    def _stop(self) -> None:
        """Workers first: their last checkpoint still reaches the coordinator."""
        until = time.monotonic() + END_SECONDS
        for child in self._children:
            child.terminate()
        for child in self._children:
            child.end(until)
        if self._coordinator is not None:
            self._coordinator.terminate()
            self._coordinator.end(time.monotonic() + COORDINATOR_END_SECONDS)
        self._coordinator, self._children = None, []
        if self._catches:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._catches = False
        if self._owner is not None:
            self._owner.free()
        if not self._registered and not list(self._state.glob("workers/*/jobs/*.kept")):
            shutil.rmtree(self._state, ignore_errors=True)


def refuse_second(path: Path) -> None:
    """Raises UserError when a fleet runs already."""
    if fleet := fleet_file.find(path):
        raise UserError(
            f"a fleet runs already: coordinator pid {fleet.pid}, port {fleet.port}",
            hint="use it as it is, or stop it first: llamaforge down",
        )


def _leave(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
