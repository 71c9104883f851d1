"""The door of the worker's port: strangers are reset before a byte is read, guests leave soon."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import cast

from aiohttp.web_server import Server

from llamaforge.spec.networks import canonical
from llamaforge.worker.peer.guard import Guard

STAY_SECONDS = 10.0
"""How long a connection may last: the pages are small, and nobody holds the port by dawdling."""
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: on, for no time. Closing then sends a reset, and leaves nothing behind here."""


class Door(asyncio.Protocol):
    """One connection: refused, or handed on to HTTP.

    Args:
        guard: decides about addresses.
        protocols: makes what speaks HTTP.
        inside: all connections that were let in.
        most: how many may be.
        each: how many of them may have the same origin.
    """

    def __init__(
        self, guard: Guard, protocols: Server, inside: set[Door], *, most: int, each: int
    ) -> None:
        self._guard, self._protocols = guard, protocols
        self._inside, self._most, self._each = inside, most, each
        self.origin = ""
        """Where it comes from."""
        self._http: asyncio.Protocol | None = None
        self._leave: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Lets in or resets."""
        stream = cast("asyncio.Transport", transport)
        peer = stream.get_extra_info("peername")
        if peer is None or not self._guard.allows(peer[0]) or self._is_full(origin(peer[0])):
            reset(stream)
            return
        self.origin = origin(peer[0])
        self._inside.add(self)
        self._leave = asyncio.get_running_loop().call_later(STAY_SECONDS, reset, stream)
        self._http = self._protocols()
        self._http.connection_made(stream)

    def _is_full(self, newcomer: str) -> bool:
        same = sum(door.origin == newcomer for door in self._inside)
        return len(self._inside) >= self._most or same >= self._each

    def connection_lost(self, exc: Exception | None) -> None:
        """Makes room."""
        self._inside.discard(self)
        if self._leave is not None:
            self._leave.cancel()
        if self._http is not None:
            self._http.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hands on."""
        if self._http is not None:
            self._http.data_received(data)

    def eof_received(self) -> bool | None:
        """Hands on."""
        return self._http.eof_received() if self._http is not None else None

    def pause_writing(self) -> None:
        """Hands on."""
        if self._http is not None:
            self._http.pause_writing()

    def resume_writing(self) -> None:
        """Hands on."""
        if self._http is not None:
            self._http.resume_writing()


def origin(peer: str) -> str:
    """What connections are counted by: the address; this machine's users are one."""
    address = canonical(peer)
    return "here" if address.is_loopback else str(address)


def reset(transport: asyncio.Transport) -> None:
    """Ends a connection at once."""
    if not transport.is_closing():
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()
