"""Accepts the port's connections and listens which language they speak: plain HTTP or TLS.

The first byte tells, and is only looked at. Health and metrics are for addresses that the guard
knows; TLS is for whoever has a certificate of the fleet, at any address. So a stranger may stay
until his first byte, but only a few of them, and not for long.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from llamaforge.worker.peer.door import Door, origin
from llamaforge.worker.peer.guard import Guard
from llamaforge.worker.peer.secure import SecurePort

FIRST_BYTE_SECONDS = 5.0
MOST_FRIENDS, MOST_STRANGERS, EACH = 64, 32, 8
"""Connections that have not said anything yet: of known addresses, of others, of each."""
BACKLOG = 100
_TLS = b"\x16"
"""What a TLS client begins with."""

log = logging.getLogger("llamaforge.worker")


class Entrance:
    """Listening sockets.

    Args:
        guard: knows addresses.
        plain: makes what takes a plain connection; it refuses strangers.
        secure: takes a connection that speaks TLS.
    """

    def __init__(self, guard: Guard, plain: Callable[[], Door], secure: SecurePort | None) -> None:
        self._guard, self._plain, self._secure = guard, plain, secure
        self._listening: list[socket.socket] = []
        self._silent: dict[socket.socket, tuple[str, bool, asyncio.TimerHandle]] = {}
        """Connections without a first byte: their origin, whether it is known, and their time."""
        self._handing: set[asyncio.Task[None]] = set()

    async def open(self, sockets: list[socket.socket]) -> int:
        """Listens on bound sockets. Returns the port."""
        loop = asyncio.get_running_loop()
        for listening in sockets:
            listening.setblocking(False)
            listening.listen(BACKLOG)
            self._listening.append(listening)
            loop.add_reader(listening, self._accept, listening)
        return int(sockets[0].getsockname()[1])

    def close(self) -> None:
        """Stops listening, and drops those that have said nothing."""
        loop = asyncio.get_running_loop()
        for listening in self._listening:
            loop.remove_reader(listening)
            listening.close()
        self._listening.clear()
        for connection in list(self._silent):
            self._leave(connection)
            connection.close()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(BACKLOG):
            try:
                connection, peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as why:  # no more file descriptors: later
                log.warning("can't accept a connection: %s", why)
                self._pause(listening)
                return
            connection.setblocking(False)
            self._came(connection, str(peer[0]))

    def _pause(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        loop.call_later(1.0, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._listening:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _came(self, connection: socket.socket, peer: str) -> None:
        """Waits for the first byte, where it matters."""
        if self._secure is None or not self._secure.ready:
            self._hand_to_plain(connection)
            return
        who, friend = origin(peer), self._guard.knows(peer)
        same = sum(1 for other, known, _ in self._silent.values() if known is friend)
        each = sum(1 for other, _, _ in self._silent.values() if other == who)
        if same >= (MOST_FRIENDS if friend else MOST_STRANGERS) or (not friend and each >= EACH):
            self._guard.refused += 1
            connection.close()
            return
        loop = asyncio.get_running_loop()
        timer = loop.call_later(FIRST_BYTE_SECONDS, self._spoke, connection)
        self._silent[connection] = (who, friend, timer)
        loop.add_reader(connection, self._spoke, connection)

    def _spoke(self, connection: socket.socket) -> None:
        """The first byte is there, or the connection is over, or its time is."""
        who = self._silent[connection][0]
        self._leave(connection)
        try:
            first = connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            first = b"?"  # time is over: the door has its own
        except OSError:
            first = b""
        if first == _TLS and self._secure is not None:
            self._secure.take(connection, who)
        elif first:
            self._hand_to_plain(connection)
        else:
            connection.close()

    def _leave(self, connection: socket.socket) -> None:
        _, _, timer = self._silent.pop(connection)
        timer.cancel()
        asyncio.get_running_loop().remove_reader(connection)

    def _hand_to_plain(self, connection: socket.socket) -> None:
        task = asyncio.ensure_future(self._plainly(connection))
        self._handing.add(task)
        task.add_done_callback(self._handing.discard)

    async def _plainly(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(self._plain, connection)
        except OSError as why:
            log.debug("a connection was over before it began: %s", why)
            connection.close()
