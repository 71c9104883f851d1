"""The coordinator's process: lock, ledger, doors, fleet file; then it serves until told to end.

llamaforge coordinator run --port 29400
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import time
from pathlib import Path
from typing import Any

from aiohttp import web

from llamaforge import __version__
from llamaforge.bundle.store import BlobStore
from llamaforge.coordinator.blob_keeper import BlobKeeper
from llamaforge.coordinator.board import Board
from llamaforge.coordinator.configuration import Configuration
from llamaforge.coordinator.http.doors import Doors
from llamaforge.coordinator.http.gate import Gate, service_group
from llamaforge.coordinator.http.joining import Joining
from llamaforge.coordinator.http.members import Members
from llamaforge.coordinator.http.server import Server
from llamaforge.coordinator.ledger import Ledger
from llamaforge.coordinator.service import Service
from llamaforge.errors import FleetError, UserError
from llamaforge.identity.authority import Authority
from llamaforge.paths import writing_state
from llamaforge.spec.fleet import CoordinatorSettings
from llamaforge.systemd import unit
from llamaforge.systemd.notify import Notify
from llamaforge.wire import fleet_file
from llamaforge.wire.api import Status
from llamaforge.wire.fleet_file import FleetFile
from llamaforge.wire.nonsense import quiet

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where to dial a coordinator on this machine that listens on every address."""

SHOWN = 50
"""Ended jobs that the status shows; `llamaforge jobs --all` lists those that are remembered."""

log = logging.getLogger("llamaforge.coordinator")


async def run(configuration: Configuration, notify: Notify) -> None:
    """Serves until SIGTERM or SIGINT.

    Args:
        configuration: its settings.
        notify: the service manager, if there is one.

    Raises:
        UserError: another coordinator uses the state folder, it can't be written, or the port is
            taken.
    """
    path = Path(configuration.settings.runtime_dir) / fleet_file.NAME
    lock = fleet_file.lock_of(path)
    if not await asyncio.to_thread(lock.take):
        raise _runs_already(path)
    path.unlink(
        missing_ok=True
    )  # one that was killed left its own, and the lock now vouches for it
    try:
        await _serve(configuration, notify, path)
    finally:
        path.unlink(missing_ok=True)
        lock.free()


async def _serve(configuration: Configuration, notify: Notify, path: Path) -> None:
    """Takes up what an earlier process left, opens the doors, and works until it is told to end."""
    settings, state = configuration.settings, Path(configuration.settings.state_dir)
    ended = _ended_by_signal()
    with writing_state(state):
        authority = await asyncio.to_thread(Authority.open, state / "authority")
    ledger = Ledger.open(state / "ledger.db")
    try:
        fleet, process = _fleet_id(ledger), secrets.token_hex(8)
        store = BlobStore(Path(settings.cache_dir) / "blobs")
        board = Board(
            state,
            fleet,
            process,
            ledger,
            store,
            node_grace=settings.node_grace,
            stop_seconds=settings.stop_seconds,
            return_grace=settings.return_grace,
        )
        board.recover()
        coordinator = Coordinator(configuration, notify, path, authority, ledger, board, store)
        await coordinator.run(fleet, ended)
    finally:
        with contextlib.suppress(OSError):  # what is not durable was told to nobody
            ledger.close()


class Coordinator:
    """The parts of a coordinator that serve."""

    def __init__(
        self,
        configuration: Configuration,
        notify: Notify,
        path: Path,
        authority: Authority,
        ledger: Ledger,
        board: Board,
        store: BlobStore,
    ) -> None:
        self._settings, self._path, self._board = configuration.settings, path, board
        self._ledger, self._authority = ledger, authority
        self._started, self._fleet = time.time(), ""
        self._doors = Doors(self._settings, authority)
        members = Members(ledger)
        members.on_out.append(self._sent_away)
        joining = Joining(
            authority,
            ledger,
            members,
            address=self._doors.address,
            connected=lambda name: bool((n := board.nodes.get(name)) and n.connection),
        )
        self._keeper = BlobKeeper(
            Path(self._settings.cache_dir),
            lambda: configuration.settings.cache_bytes,
            board.blobs_in_use,
            name=_fleet_id(ledger),
        )
        self._server = Server(
            board, store, Gate(members, self._doors.newcomers), joining, self.status, self._keeper
        )
        self._service = Service(
            configuration,
            notify,
            Path(self._settings.runtime_dir) if unit.runs_us(os.environ) else None,
            status=self.status,
            apply=self._reconfigure,
            trouble=lambda: ledger.trouble,
        )

    async def run(self, fleet: str, ended: asyncio.Future[str]) -> None:
        """Serves until `ended`, or until a part breaks, which is raised."""
        self._fleet = fleet
        await self._service.pause()
        runner = web.AppRunner(
            self._server.app(),
            access_log=None,
            logger=quiet(log),
            shutdown_timeout=1.0,
            handler_cancellation=True,
        )
        await runner.setup()
        try:
            await self._doors.open(runner)
            self._publish()
            parts: list[asyncio.Future[Any]] = [
                asyncio.ensure_future(self._board.run()),
                asyncio.ensure_future(self._service.run()),
                asyncio.ensure_future(self._doors.renew()),
                asyncio.ensure_future(self._keeper.run()),
            ]
            await asyncio.wait({*parts, ended}, return_when=asyncio.FIRST_COMPLETED)
            for part in parts:
                if part.done():
                    part.result()
            self._service.ending(ended.result() if ended.done() else "its work is over")
            for part in parts:
                part.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await part
        finally:
            self._doors.close()
            await runner.cleanup()

    def _reconfigure(self, settings: CoordinatorSettings) -> None:
        self._settings = settings
        self._doors.reconfigure(settings)
        self._board.reconfigure(
            node_grace=settings.node_grace,
            stop_seconds=settings.stop_seconds,
            return_grace=settings.return_grace,
        )

    def status(self) -> Status:
        """The fleet as it is now."""
        jobs = [job for job in self._board.jobs() if not job.state.final]
        ended = [job for job in self._board.jobs() if job.state.final][-SHOWN:]
        return Status(
            coordinator=self._fleet,
            version=__version__,
            pid=os.getpid(),
            started=self._started,
            nodes=tuple(node.status() for node in self._board.nodes.all()),
            jobs=tuple(job.status() for job in [*ended, *jobs]),
        )

    def _publish(self) -> None:
        """Writes the fleet file, by which this machine's people and workers find the fleet."""
        settings = self._settings
        fleet = FleetFile(
            host=_LOOPBACK.get(settings.host, settings.host),
            port=self._doors.port,
            pid=os.getpid(),
            uid=os.geteuid(),
            socket=str(self._doors.socket),
            fleet=self._fleet,
            authority=self._authority.fingerprint,
        )
        with writing_state(self._path.parent):
            fleet_file.write(self._path, fleet, mode=0o600 if service_group() is None else 0o640)
        log.info("listening on %s:%d; fleet file %s", settings.host, fleet.port, self._path)
        if settings.host not in ("127.0.0.1", "::1", "localhost"):
            log.info(
                "a worker on another machine joins with: sudo llamaforge worker join %s; a token "
                "for it: llamaforge coordinator token",
                self._doors.address(),
            )

    def _sent_away(self, kind: str, name: str) -> None:
        if kind == "node":
            self._board.removed(name, "it was removed from the fleet")


def _fleet_id(ledger: Ledger) -> str:
    """This fleet's id: made once, the same in every process of its coordinator."""
    rows = ledger.read("SELECT value FROM meta WHERE key = 'fleet'")
    if rows:
        return str(rows[0][0])
    fleet = secrets.token_hex(8)
    ledger.write("INSERT INTO meta (key, value) VALUES ('fleet', ?)", fleet)
    ledger.flush()
    return fleet


def _ended_by_signal() -> asyncio.Future[str]:
    """A future that is done on SIGTERM or SIGINT, and holds the reason."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[str] = loop.create_future()

    def end(name: str) -> None:
        if not ended.done():
            log.info("ending on %s", name)
            ended.set_result(f"told to by {name}")

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number.name)
    return ended


def _runs_already(path: Path) -> UserError:
    try:
        fleet = fleet_file.read(path)
        where = f"pid {fleet.pid}, port {fleet.port}"
    except FleetError:
        where = "it is just starting"
    return UserError(
        f"a fleet runs already ({where}; {path})", hint="stop it first: llamaforge down"
    )
