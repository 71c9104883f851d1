"""The worker's own port: health and metrics for the fleet's machines and for monitoring, and, over
TLS, blobs and link tests for the fleet's other nodes (`secure`).

It never takes the port of the classic way's store on the host where that store will listen: a
listener there makes torchrun fail. Where that can't be ruled out, the port is left alone.

It is served without `aiohttp.web`, which would cost an idle worker 1.4 MB for two pages.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Iterator

import msgspec
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response
from aiohttp.web_server import Server

from llamaforge.errors import Occupied, UserError
from llamaforge.spec.fleet import PEER_PORT, WorkerSettings
from llamaforge.spec.networks import Networks, parse_networks
from llamaforge.wire.nonsense import quiet
from llamaforge.worker.own_address import is_here
from llamaforge.worker.peer.door import Door
from llamaforge.worker.peer.entrance import Entrance
from llamaforge.worker.peer.guard import Guard
from llamaforge.worker.peer.secure import SecurePort

TRIES = 100
"""Ports that are tried, one after the other."""
CONNECTIONS = 64
"""Connections at a time; more are refused."""
EACH = 16
"""Of them, from one address: a user of this machine can't keep the fleet out."""
LINE_BYTES = 8192
"""The longest line of a request."""

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
    status: str = ""
    """What it is doing, in one line, as `systemctl status` shows it."""
    ready: bool = True
    """Whether it can take a job: nothing is missing, and it is not leaving."""
    job: str = ""
    """The job that it runs; "" for none."""
    generation: int = 0
    step: int = 0
    """Steps of this job that are committed."""
    total_steps: int = 0
    versions: dict[str, str] = {}
    """Of llamaforge, python and torch on this node."""
    confined: bool = True
    """Whether ranks and scripts are kept from the node's secrets."""


class PeerPort:
    """Serves `/health` and `/metrics` to those who may connect, and the rest to the fleet's nodes.

    Args:
        settings: host, first port, and who may connect.
        figures: tells the present figures.
        coordinator_host: tells where the coordinator is; None while that isn't known.
        secure: what speaks TLS; None: nothing does.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        figures: Callable[[], Figures],
        coordinator_host: Callable[[], str | None] = lambda: None,
        secure: SecurePort | None = None,
    ) -> None:
        self._settings, self._figures = settings, figures
        self._coordinator_host = coordinator_host
        self._guard = Guard(self._listed(settings.allow), self._friends)
        self._protocols = Server(
            self._answer,
            access_log=None,
            logger=quiet(log),
            max_line_size=LINE_BYTES,
            max_field_size=LINE_BYTES,
        )
        self._secure = secure
        self._entrance = Entrance(self._guard, self._door, secure)
        self._open: set[Door] = set()
        self.port = 0
        """The port that was taken; 0 before."""

    async def start(self) -> None:
        """Takes a port and serves.

        Raises:
            UserError: the address is not this machine's.
            Occupied: no port is free.
        """
        self._guard.learn()
        reserved = await reserved_ports(self._settings, self._coordinator_host())
        wanted = self._settings.peer_port
        for port in range(wanted, min(wanted + TRIES, 65536)) if wanted else [0]:
            if port not in reserved and await self._bound(port):
                self._say(wanted, reserved)
                return
        raise Occupied(
            f"no free port from {wanted} on for health and metrics",
            hint="choose another one with --peer-port, or 0 for any",
        )

    def reconfigure(self, settings: WorkerSettings) -> None:
        """Takes another list of who may connect; open connections stay. Raises SpecError."""
        self._settings = settings
        self._guard.change(self._listed(settings.allow))

    async def stop(self) -> None:
        """Stops serving."""
        self._guard.close()
        self._entrance.close()
        if self._secure is not None:
            self._secure.stop()
        await self._protocols.shutdown(timeout=1.0)

    @staticmethod
    def _listed(text: str | None) -> Networks:
        return parse_networks(text, source="LLAMAFORGE_ALLOW")

    def _friends(self) -> Iterator[str]:
        """Hosts that may always connect."""
        yield from filter(None, (self._coordinator_host(), self._settings.master_addr))

    def _door(self) -> Door:
        return Door(self._guard, self._protocols, self._open, most=CONNECTIONS, each=EACH)

    async def _bound(self, port: int) -> bool:
        host = self._settings.peer_host
        try:
            sockets = [both_families(port)] if host == "::" else await _bind(host, port)
        except (OSError, UnicodeError) as why:  # UnicodeError: `a..b`
            if getattr(why, "errno", None) == errno.EADDRINUSE:
                return False
            raise UserError(
                f"can't listen on {host}:{port}: {getattr(why, 'strerror', why)}",
                hint="look at --peer-host",
            ) from why
        self.port = await self._entrance.open(sockets)
        return True

    def _say(self, wanted: int, reserved: set[int]) -> None:
        host = self._settings.peer_host
        where = f"health and metrics at http://{host}:{self.port}"
        if host in ("::", "0.0.0.0"):
            where = f"health and metrics on all addresses, port {self.port}"
        if wanted in reserved:
            where += f" ({wanted} is left to torchrun's store)"
        elif wanted not in (0, self.port):
            where += f" ({wanted} is in use)"
        log.info("%s", where)

    async def _answer(self, request: BaseRequest) -> Response:
        if request.path == "/health":
            body = msgspec.json.encode(self._figures())
            answer = Response(body=body, content_type="application/json")
        elif request.path == "/metrics":
            answer = Response(text=prometheus(self._figures(), refused=self._guard.refused))
        else:
            answer = Response(status=404, text="here are /health and /metrics\n")
        answer.force_close()  # connections are few, and a new one costs nothing
        return answer


async def _bind(host: str, port: int) -> list[socket.socket]:
    """A listening socket for each address of a host, all on one port. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, *_, address in dict.fromkeys(found):
            there = (address[0], sockets[0].getsockname()[1] if sockets else port, *address[2:])
            sockets.append(socket.create_server(there, family=family))
    except BaseException:
        for bound in sockets:
            bound.close()
        raise
    return sockets


def both_families(port: int) -> socket.socket:
    """A socket that listens on all addresses, IPv4's and IPv6's; IPv4's where there is no IPv6.

    Raises:
        OSError: the port is in use.
    """
    if socket.has_dualstack_ipv6():
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("0.0.0.0", port))


def prometheus(figures: Figures, *, refused: int = 0) -> str:
    """The figures in Prometheus' text format."""
    rows = [
        ("ready", "gauge", "1 while the worker can take a job", int(figures.ready)),
        ("connected", "gauge", "1 while the coordinator is there", int(figures.connected)),
        ("busy", "gauge", "1 while a job runs here", int(bool(figures.busy))),
        ("ranks", "gauge", "Ranks that run here", figures.ranks),
        ("jobs_total", "counter", "Jobs since the worker started", figures.jobs),
        ("refused_total", "counter", "Connections from addresses that may not connect", refused),
    ]
    if figures.job:
        rows.append(("step", "gauge", "Committed steps of the job that runs", figures.step))
    text = "".join(
        f"# HELP llamaforge_worker_{name} {text}\n"
        f"# TYPE llamaforge_worker_{name} {kind}\n"
        f"llamaforge_worker_{name} {value}\n"
        for name, kind, text, value in rows
    )
    labels = ",".join(f'{name}="{_label(value)}"' for name, value in figures.versions.items())
    return text + (
        "# HELP llamaforge_worker_info Versions of what runs here\n"
        "# TYPE llamaforge_worker_info gauge\n"
        f"llamaforge_worker_info{{{labels}}} 1\n"
    )


def _label(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


async def reserved_ports(settings: WorkerSettings, coordinator_host: str | None) -> set[int]:
    """Ports on which a torchrun store may want to listen on this machine."""
    if settings.master_addr is not None:
        return {PEER_PORT, settings.master_port} if await is_here(settings.master_addr) else set()
    if coordinator_host is None or await is_here(coordinator_host):
        return {PEER_PORT, settings.master_port}
    return set()
