"""The coordinator's process: lock, token, port, fleet file; then it serves until it is told to end.

llamaforge coordinator run --port 29400
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import secrets
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from aiohttp import web

from llamaforge import __version__
from llamaforge.bundle.store import BlobStore
from llamaforge.coordinator.board import Board
from llamaforge.coordinator.configuration import Configuration
from llamaforge.coordinator.server import Server
from llamaforge.coordinator.service import Service
from llamaforge.errors import FleetError, UserError
from llamaforge.paths import writing_state
from llamaforge.spec.fleet import CoordinatorSettings
from llamaforge.systemd import unit
from llamaforge.systemd.notify import Notify
from llamaforge.wire import fleet_file
from llamaforge.wire.api import Status
from llamaforge.wire.auth import keep_token
from llamaforge.wire.fleet_file import FleetFile
from llamaforge.wire.listener import who_listens

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where to dial a coordinator on this machine that listens on every address."""

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
    state = Path(configuration.settings.state_dir)
    path = state / fleet_file.NAME
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
    settings = configuration.settings
    ended = _ended_by_signal()
    identity, started = secrets.token_hex(8), time.time()
    with writing_state(path.parent):
        token = keep_token(path.parent / "token")
    streams = path.parent / "streams"
    shutil.rmtree(streams, ignore_errors=True)  # of jobs that ended with an earlier coordinator
    store = BlobStore(Path(settings.cache_dir) / "blobs")
    board = Board(
        streams,
        identity,
        store,
        node_grace=settings.node_grace,
        stop_seconds=settings.stop_seconds,
        return_grace=settings.return_grace,
    )

    def status() -> Status:
        return Status(
            coordinator=identity,
            version=__version__,
            pid=os.getpid(),
            started=started,
            nodes=tuple(node.status() for node in board.nodes.all()),
            jobs=tuple(job.status() for job in board.jobs()),
        )

    service = Service(
        configuration,
        notify,
        Path(settings.runtime_dir) if unit.runs_us(os.environ) else None,
        status=status,
    )
    await service.pause()
    server = Server(board, store, token, status)
    runner = web.AppRunner(server.app(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        port = await _listen(runner, settings)
        host = _LOOPBACK.get(settings.host, settings.host)
        with writing_state(path.parent):
            fleet_file.write(path, FleetFile(host=host, port=port, token=token, pid=os.getpid()))
        log.info("listening on %s:%d; fleet file %s", settings.host, port, path)
        if settings.host not in ("127.0.0.1", "::1", "localhost"):
            log.info(
                "a worker on another machine joins with --coordinator %s --token-file FILE, a copy "
                "of %s",
                *(_as_option(settings.host, port), path.parent / "token"),
            )
        parts: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(board.run()),
            asyncio.ensure_future(service.run()),
        ]
        await asyncio.wait({*parts, ended}, return_when=asyncio.FIRST_COMPLETED)
        for part in parts:
            if part.done():
                part.result()
        service.ending(ended.result() if ended.done() else "its work is over")
        for part in parts:
            part.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await part
    finally:
        await runner.cleanup()


def _as_option(host: str, port: int) -> str:
    """HOST:PORT, as a worker's --coordinator takes it."""
    if host in _LOOPBACK:
        return f"HOST:{port}"  # it listens on all addresses; which one is reached is not known
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _listen(runner: web.AppRunner, settings: CoordinatorSettings) -> int:
    """Binds the port. Returns the one that was bound."""
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
    except OSError as why:
        if why.errno != errno.EADDRINUSE:
            raise UserError(
                f"can't listen on {settings.host}:{settings.port}: {why.strerror}",
                hint="choose another --host or --port",
            ) from why
        owner = who_listens(settings.port)
        raise UserError(
            f"port {settings.port} is in use{f' by {owner}' if owner else ''}",
            hint="choose another one with --port, or 0 for any free one",
        ) from why
    return int(runner.addresses[0][1])


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
