"""Parts of big files, read over HTTP by a thread: far less work for a processor than an event loop.

A gigabyte over TLS costs an event loop several copies of each byte; here OpenSSL decrypts into the
buffer that is written to the file, and Python's lock is free meanwhile.

    source = RangeSource(Endpoint.of(fleet))
    source.read("/v1/blobs/DIGEST", start, length, lambda offset, data: …)
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import msgspec

from llamaforge.errors import FleetError
from llamaforge.identity import contexts
from llamaforge.wire.api import Trouble
from llamaforge.wire.endpoint import Endpoint

CHUNK = 1 << 20
"""Bytes handed on at a time."""
CONNECT_SECONDS = 10.0
SILENT_SECONDS = 30.0
"""Without a byte for so long, a source counts as gone."""
LATER = frozenset({408, 429, 500, 502, 503, 504, 507})
"""Answers that say nothing against trying again."""
_MOST_TROUBLE = 1 << 16

Sink = Callable[[int, memoryview], None]


class NotYet(Exception):
    """The other side can't answer now, and may later."""


class RangeSource:
    """One connection that is made when it is needed and kept; for one thread at a time.

    Args:
        endpoint: where a coordinator or a peer is now; asked whenever it is dialled.
        silent: seconds without a byte after which it counts as gone.
    """

    def __init__(self, endpoint: Callable[[], Endpoint], *, silent: float = SILENT_SECONDS) -> None:
        self._endpoint = endpoint
        self._silent = silent
        self._connection: _Connection | None = None
        self._aborted = False

    def read(
        self, path: str, start: int, length: int, sink: Sink, *, within: float | None = None
    ) -> None:
        """Reads a range and hands it to `sink`, offset and bytes, in order.

        Args:
            path: what to ask for.
            start: first byte.
            length: bytes.
            sink: takes them before it returns; the buffer is used again.
            within: seconds for all of it.

        Raises:
            NotYet: the other side can't answer now.
            FleetError: it refuses.
            OSError: the connection broke, was never made, or is too slow; what `sink` raises.
        """
        until = None if within is None else time.monotonic() + within
        fresh = self._connection is None
        try:
            self._read(path, start, length, sink, until)
        except (http.client.HTTPException, OSError) as why:
            self.close()
            stale = isinstance(why, http.client.RemoteDisconnected | BrokenPipeError)
            if stale and not fresh and not self._aborted:  # it was closed while nothing went on
                self.read(path, start, length, sink, within=within)
            elif isinstance(why, OSError):
                raise
            else:
                raise ConnectionError(f"{type(why).__name__}: {why}") from why
        except BaseException:
            self.close()
            raise

    def abort(self) -> None:
        """Ends what another thread is reading."""
        self._aborted = True
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):  # it has ended already
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)  # TLS's own is no abort

    def close(self) -> None:
        """Closes the connection; the next read makes another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _read(self, path: str, start: int, length: int, sink: Sink, until: float | None) -> None:
        if self._aborted:
            raise ConnectionError("ended")
        if self._connection is None:
            self._connection = _Connection(self._endpoint(), self._silent)
        headers = {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"}
        self._connection.request("GET", path, headers=headers)
        answer = self._connection.getresponse()
        if answer.status != http.client.PARTIAL_CONTENT or answer.length != length:
            _refuse(answer, f"{start}-{start + length - 1} of {path}")
        buffer = memoryview(bytearray(min(CHUNK, length)))
        done = 0
        while done < length:
            count = answer.readinto(buffer[: length - done])
            if not count:
                raise ConnectionError(f"it ended after {done} of {length} bytes")
            sink(start + done, buffer[:count])
            done += count
            if until is not None and time.monotonic() > until:
                raise TimeoutError(f"only {done} of {length} bytes came in time")
        answer.read()


class _Connection(http.client.HTTPConnection):
    """HTTP over whatever an endpoint is."""

    def __init__(self, endpoint: Endpoint, silent: float) -> None:
        super().__init__(endpoint.name, timeout=silent)
        self._endpoint, self._silent = endpoint, silent

    def connect(self) -> None:
        """Dials."""
        sock: socket.socket
        there = self._endpoint
        if there.socket:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(CONNECT_SECONDS)
            sock.connect(there.socket)
        else:
            context = contexts.client(there.identity)
            bare = socket.create_connection((there.host, there.port), CONNECT_SECONDS)
            try:
                bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock = context.wrap_socket(bare, server_hostname=there.name)
            except ssl.SSLCertVerificationError as why:
                bare.close()
                raise ConnectionError(
                    f"{there.url} shows no certificate for {there.name}: {why.verify_message}"
                ) from why
            except BaseException:
                bare.close()
                raise
        sock.settimeout(self._silent)
        self.sock: Any = sock


def _refuse(answer: http.client.HTTPResponse, what: str) -> None:
    """Raises what an unexpected answer means."""
    body = answer.read(_MOST_TROUBLE)
    try:
        trouble = msgspec.json.decode(body, type=Trouble)
    except msgspec.MsgspecError:
        trouble = Trouble(message=f"asked for bytes {what}, it answered {answer.status}")
    if answer.status in LATER:
        raise NotYet(trouble.message)
    raise FleetError(trouble.message, hint=trouble.hint)
