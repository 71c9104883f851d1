"""Where a coordinator or a peer is reached, and how: a unix socket, or TCP with TLS.

async with Endpoint.of(fleet).open() as http:
    await http.get(api.STATUS)
    await http.ws_connect(api.WORKERS)

The certificate's name stands in the address of every request, and a resolver of our own leads it
to the host that is really dialled: so TLS checks the role of whoever answers, and no name of ours
is ever looked up.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult

from llamaforge.errors import FleetError
from llamaforge.identity import contexts
from llamaforge.identity.buffers import small_buffers
from llamaforge.identity.names import COORDINATOR_HOST

if TYPE_CHECKING:
    from llamaforge.wire.fleet_file import FleetFile

_LOCAL = "http://coordinator"
"""Root of the paths over a unix socket; the name means nothing."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One coordinator or peer. Either `socket`, or `host`, `port` and mostly `identity` are set."""

    host: str = ""
    """Name or address that is dialled."""
    port: int = 0
    identity: str = ""
    """Folder of the identity that is shown; see `identity.folder`."""
    name: str = COORDINATOR_HOST
    """Whom the other side's certificate must name."""
    socket: str = ""
    """Path of a unix socket; it wins over host and port."""

    @classmethod
    def of(cls, fleet: FleetFile) -> Endpoint:
        """The coordinator of a fleet file: its socket where there is one, else its port.

        Raises:
            FleetError: the file names neither a socket nor an identity.
        """
        if fleet.socket:
            return cls(socket=fleet.socket)
        if not fleet.identity:
            raise FleetError(
                f"the fleet file of {fleet.host}:{fleet.port} names neither socket nor identity",
                hint=f"join that fleet: llamaforge login {fleet.host}:{fleet.port}",
            )
        return cls(host=fleet.host, port=fleet.port, identity=fleet.identity)

    @property
    def url(self) -> str:
        """Where it is, for people."""
        if self.socket:
            return f"unix:{self.socket}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}"

    def open(
        self,
        headers: Mapping[str, str] | None = None,
        timeout: aiohttp.ClientTimeout | None = None,
        limit: int = 100,
        context: ssl.SSLContext | None = None,
    ) -> aiohttp.ClientSession:
        """An HTTP session whose relative paths are there. Call it within the event loop.

        Args:
            headers: of every request.
            timeout: of every request; aiohttp's default where none is given.
            limit: connections at a time.
            context: for TLS; by default that of the identity.

        Raises:
            FleetError: the identity can't be used.
        """
        if self.socket:
            _reachable(Path(self.socket))
            connector: aiohttp.BaseConnector = aiohttp.UnixConnector(self.socket, limit=limit)
            base = _LOCAL
        else:
            small_buffers()
            connector = aiohttp.TCPConnector(
                ssl=context or contexts.client(self.identity),
                resolver=_Fixed(self.host),
                use_dns_cache=False,
                limit=limit,
            )
            base = f"https://{self.name}:{self.port}"
        return aiohttp.ClientSession(
            base,
            connector=connector,
            headers=headers,
            timeout=timeout or aiohttp.ClientTimeout(),
            trust_env=False,
        )


class _Fixed(AbstractResolver):
    """Leads every name to one host."""

    def __init__(self, host: str) -> None:
        self._host = host

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,
    ) -> list[ResolveResult]:
        """The addresses of the host that is really dialled."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, port, family=family, type=socket.SOCK_STREAM)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST,
            )
            for kind, _, proto, _, address in found
        ]

    async def close(self) -> None:
        """Nothing is held."""


def _reachable(path: Path) -> None:
    """Says in words why a socket can't be dialled, where that can be told beforehand."""
    try:
        path.stat()
    except PermissionError as why:
        raise FleetError(
            f"this user may not use {path}",
            hint="sudo usermod --append --groups llamaforge $USER, and log in again",
        ) from why
    except FileNotFoundError:
        return  # dialling tells, and whoever waits for a coordinator tries again
