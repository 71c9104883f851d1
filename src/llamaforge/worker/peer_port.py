"""The worker's own port: health and metrics for monitoring, on the loopback address by default.

It never takes the port of the classic way's store on the host where that store will listen: a
listener there makes torchrun fail. Where that can't be ruled out, the port is left alone.

It is served without `aiohttp.web`, which would cost an idle worker 1.4 MB for two pages.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from collections.abc import Callable

import msgspec
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response
from aiohttp.web_server import Server

from llamaforge.errors import UserError
from llamaforge.spec.fleet import PEER_PORT, WorkerSettings

RESOLVE_SECONDS = 5.0
TRIES = 100
"""Ports that are tried, one after the other."""

log = logging.getLogger("llamaforge.worker")


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker tells about itself."""

    connected: bool
    """Whether its coordinator is there."""
    busy: str
    """What it is busy with; empty when it waits."""
    ranks: int
    """Ranks that run now."""
    jobs: int
    """Jobs since it started."""


class PeerPort:
    """Serves `/health` and `/metrics`.

    Args:
        settings: host and first port.
        figures: tells the present figures.
    """

    def __init__(self, settings: WorkerSettings, figures: Callable[[], Figures]) -> None:
        self._settings, self._figures = settings, figures
        self._protocols = Server(self._answer, access_log=None)
        self._server: asyncio.Server | None = None
        self.port = 0
        """The port that was taken; 0 before."""

    async def start(self, coordinator_host: str | None) -> None:
        """Takes a port and serves.

        Args:
            coordinator_host: where the coordinator is; None when that isn't known yet.

        Raises:
            UserError: the address is not this machine's, or no port is free.
        """
        reserved = await reserved_ports(self._settings, coordinator_host)
        wanted = self._settings.peer_port
        for port in range(wanted, min(wanted + TRIES, 65536)) if wanted else [0]:
            if port not in reserved and await self._bound(port):
                self._say(wanted, reserved)
                return
        raise UserError(
            f"no free port from {wanted} on for health and metrics",
            hint="choose another one with --peer-port, or 0 for any",
        )

    async def stop(self) -> None:
        """Stops serving."""
        if self._server is not None:
            self._server.close()
            await self._protocols.shutdown(timeout=1.0)

    async def _bound(self, port: int) -> bool:
        host = self._settings.peer_host
        try:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._protocols, host, port)
        except OSError as why:
            if why.errno == errno.EADDRINUSE:
                return False
            raise UserError(
                f"can't listen on {host}:{port}: {why.strerror}", hint="look at --peer-host"
            ) from why
        self.port = int(self._server.sockets[0].getsockname()[1])
        return True

    def _say(self, wanted: int, reserved: set[int]) -> None:
        where = f"health and metrics at http://{self._settings.peer_host}:{self.port}"
        if wanted in reserved:
            where += f" ({wanted} is left to torchrun's store)"
        elif wanted not in (0, self.port):
            where += f" ({wanted} is in use)"
        log.info("%s", where)

    async def _answer(self, request: BaseRequest) -> Response:
        if request.path == "/health":
            body = msgspec.json.encode(self._figures())
            return Response(body=body, content_type="application/json")
        if request.path == "/metrics":
            return Response(text=prometheus(self._figures()))
        return Response(status=404, text="here are /health and /metrics\n")


def prometheus(figures: Figures) -> str:
    """The figures in Prometheus' text format."""
    rows = [
        ("connected", "gauge", "1 while the coordinator is there", int(figures.connected)),
        ("busy", "gauge", "1 while a job runs here", int(bool(figures.busy))),
        ("ranks", "gauge", "Ranks that run here", figures.ranks),
        ("jobs_total", "counter", "Jobs since the worker started", figures.jobs),
    ]
    return "".join(
        f"# HELP llamaforge_worker_{name} {text}\n"
        f"# TYPE llamaforge_worker_{name} {kind}\n"
        f"llamaforge_worker_{name} {value}\n"
        for name, kind, text, value in rows
    )


async def reserved_ports(settings: WorkerSettings, coordinator_host: str | None) -> set[int]:
    """Ports on which a torchrun store may want to listen on this machine."""
    if settings.master_addr is not None:
        return {PEER_PORT, settings.master_port} if await is_here(settings.master_addr) else set()
    if coordinator_host is None or await is_here(coordinator_host):
        return {PEER_PORT, settings.master_port}
    return set()


async def is_here(host: str) -> bool:
    """Whether a host name or address is this machine's; True where that can't be found out."""
    loop = asyncio.get_running_loop()
    try:
        return _is_here_literally(host)
    except ValueError:
        pass  # a name: it has to be looked up
    try:
        found = await asyncio.wait_for(
            loop.getaddrinfo(host, None, type=socket.SOCK_DGRAM), RESOLVE_SECONDS
        )
    except (OSError, asyncio.TimeoutError):
        return True
    return any(_bindable(family, address) for family, _, _, _, address in found)


def _is_here_literally(host: str) -> bool:
    """Whether an IP address is this machine's. Raises ValueError for a name."""
    version = ipaddress.ip_address(host).version
    return _bindable(socket.AF_INET if version == 4 else socket.AF_INET6, (host,))


def _bindable(family: int, address: tuple[object, ...]) -> bool:
    """Only an address of this machine can be bound."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address[0], 0, *address[2:]))
        except OSError:
            return False
    return True
