"""The port's other language: TLS between the fleet's nodes, for blobs and link tests.

    GET  /v1/blobs/DIGEST      with or without `Range: bytes=FIRST-LAST`; waits for what is coming
    GET  /v1/link?bytes=N      N zero bytes, for measuring a link
    POST /v1/link              swallows a body, for measuring it the other way

Each connection has a thread, which blocks: bytes go from the file through OpenSSL to the network
without passing the event loop. Nothing is read from a peer before it has shown a certificate of a
node that is in the fleet now, and everything that it may send or hold is bounded.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from llamaforge.errors import FleetError
from llamaforge.identity import contexts
from llamaforge.identity.folder import complete, identity_file
from llamaforge.identity.names import role_of
from llamaforge.wire.api import BLOBS, Trouble
from llamaforge.wire.transfer import CHUNK
from llamaforge.worker.peer.shelf import Later, Shelf

LINK = "/v1/link"
MOST = 64
"""Connections at a time."""
EACH = 16
"""Of them, from one address before it has shown who it is, or from one node after."""
HANDSHAKE_SECONDS = 5.0
IDLE_SECONDS = 60.0
"""Between two requests."""
REQUEST_SECONDS = 10.0
"""For a request's head to arrive whole."""
STALL_SECONDS = 20.0
"""For each chunk to be taken, or to come."""
HEAD_BYTES = 8192
LINK_BYTES = 64 << 20
"""The most that a link test sends or swallows."""
STACK_BYTES = 512 << 10
_RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{0,18})", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}")

log = logging.getLogger("llamaforge.worker")


class Request(NamedTuple):
    """The head of a request."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    """By name in lower case."""


class Refused(Exception):
    """A request that is answered with a status and a sentence; the connection then ends."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class SecurePort:
    """Serves this node's blobs to the fleet's other nodes.

    Args:
        identity: tells the folder of this node's identity; None while it has none.
        member: whether a node of this name is in the fleet.
        shelf: what this node has.
    """

    def __init__(
        self,
        identity: Callable[[], Path | None],
        member: Callable[[str], bool],
        shelf: Shelf,
    ) -> None:
        self._identity, self._member, self._shelf = identity, member, shelf
        self._lock = threading.Lock()
        self._open: dict[socket.socket, str] = {}
        """Each connection, and by whom it is counted: an address, then a node."""
        self._context: tuple[int, ssl.SSLContext] | None = None
        self.refused: Counter[str] = Counter()
        """Connections and requests that were refused, by reason."""

    @property
    def ready(self) -> bool:
        """Whether there is an identity to show."""
        folder = self._identity()
        return folder is not None and complete(folder)

    def take(self, connection: socket.socket, origin: str) -> None:
        """Serves an accepted connection in a thread of its own, or closes it."""
        with self._lock:
            full = len(self._open) >= MOST or self._count(origin) >= EACH
            if not full:
                self._open[connection] = origin
        if full:
            self.refused["full"] += 1
            connection.close()
            return
        old = threading.stack_size(STACK_BYTES)
        try:
            threading.Thread(target=self._run, args=(connection,), name="peer", daemon=True).start()
        except RuntimeError:  # no more threads
            self._forget(connection)
            connection.close()
        finally:
            threading.stack_size(old)

    def stop(self) -> None:
        """Ends all connections."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # not TLS's: its thread reads

    # ── one connection ────────────────────────────────────────────────────────────────────────

    def _run(self, bare: socket.socket) -> None:
        try:
            bare.settimeout(HANDSHAKE_SECONDS)
            bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._contexts().wrap_socket(
                bare, server_side=True, suppress_ragged_eofs=True, do_handshake_on_connect=False
            ) as peer:
                self._swap(bare, peer)
                try:
                    peer.do_handshake()  # the timeout is for all of it
                    self._serve(peer)
                finally:
                    self._forget(peer)
        except (FleetError, OSError) as why:  # strangers, the impatient and the slow
            self.refused["broken"] += 1
            log.debug("peer port: %s", why)
        finally:
            self._forget(bare)
            bare.close()

    def _serve(self, peer: ssl.SSLSocket) -> None:
        """Answers requests until the peer leaves or does something that isn't done."""
        rest = b""
        try:
            name = self._who(peer)
            while True:
                request, rest = _read_request(peer, rest)
                if request is None:
                    return
                if not self._member(name):
                    raise Refused("403 Forbidden", f"node {name} is not in this fleet")
                rest = self._answer(peer, request, rest)
        except Refused as why:
            self.refused[why.status[:3]] += 1
            _say(peer, why.status, why.message)

    def _who(self, peer: ssl.SSLSocket) -> str:
        """The node that the certificate names. Raises Refused."""
        names: Any = (peer.getpeercert() or {}).get("subjectAltName", ())
        roles = [role for _, name in names if (role := role_of(str(name))) is not None]
        if len(roles) != 1 or roles[0].kind != "node":
            raise Refused("403 Forbidden", "the certificate is not a node's")
        name = roles[0].name
        with self._lock:
            if self._count(f"node {name}") >= EACH:
                raise Refused("429 Too Many Requests", f"node {name} has {EACH} connections here")
            self._open[peer] = f"node {name}"
        return name

    def _answer(self, peer: ssl.SSLSocket, request: Request, rest: bytes) -> bytes:
        """Answers one request. Returns what has come beyond it."""
        if request.path == LINK and request.method == "POST":
            return _swallow(peer, request, rest)
        if request.method != "GET":
            raise Refused("405 Method Not Allowed", f"{request.method} is not for {request.path}")
        if request.headers.get("content-length", "0") != "0" or (
            "transfer-encoding" in request.headers
        ):
            raise Refused("400 Bad Request", "a GET has no body")
        if request.path == LINK:
            _send_zeros(peer, request)
        elif request.path.startswith(f"{BLOBS}/"):
            self._send_blob(peer, request)
        else:
            raise Refused("404 Not Found", "there is nothing here")
        return rest

    def _send_blob(self, peer: ssl.SSLSocket, request: Request) -> None:
        sha256 = request.path.removeprefix(f"{BLOBS}/")
        if not _DIGEST.fullmatch(sha256):
            raise Refused("404 Not Found", "that is no digest")
        size = self._shelf.size(sha256)
        asked = request.headers.get("range")
        if asked is None and size is None:
            raise Refused("404 Not Found", f"blob {sha256[:12]} is not here")
        start, length = (0, size or 0) if asked is None else _range(asked, size)
        try:
            file = self._shelf.open(sha256, start, length)
        except Later:
            _say(peer, "503 Service Unavailable", "it has not come yet", close=False)
            return
        if file is None:
            _say(peer, "404 Not Found", f"blob {sha256[:12]} is not here", close=False)
            return
        try:
            whole = os.fstat(file).st_size
            if start + length > whole:
                raise Refused("416 Range Not Satisfiable", f"the blob has {whole} bytes")
            _send_file(peer, file, start, length, whole, partial=asked is not None)
        finally:
            os.close(file)

    # ── who is here ───────────────────────────────────────────────────────────────────────────

    def _contexts(self) -> ssl.SSLContext:
        """The TLS context of the identity as it is now: it is renewed while we run.

        Raises:
            FleetError: there is none.
        """
        folder = self._identity()
        if folder is None or not complete(folder):
            raise FleetError("this node has no identity yet")
        made = identity_file(folder).stat().st_mtime_ns
        with self._lock:
            if self._context is None or self._context[0] != made:
                self._context = (made, contexts.server(folder))
            return self._context[1]

    def _count(self, who: str) -> int:
        return sum(counted == who for counted in self._open.values())

    def _swap(self, bare: socket.socket, peer: socket.socket) -> None:
        with self._lock:
            self._open[peer] = self._open.pop(bare, "")

    def _forget(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.pop(connection, None)


# ── bytes ─────────────────────────────────────────────────────────────────────────────────────


def _read_request(peer: ssl.SSLSocket, data: bytes) -> tuple[Request | None, bytes]:
    """The next request's head and what has come after it; None when the peer has left.

    Raises:
        Refused: it is no request, or too long, or takes too long.
        OSError: the connection broke, or nothing came for long.
    """
    peer.settimeout(IDLE_SECONDS)
    until = 0.0
    while b"\r\n\r\n" not in data:
        if data:
            until = until or time.monotonic() + REQUEST_SECONDS
            left = until - time.monotonic()
            if len(data) > HEAD_BYTES:
                raise Refused("431 Request Header Fields Too Large", "the request is too long")
            if left <= 0:
                raise Refused("408 Request Timeout", "the request took too long")
            peer.settimeout(left)
        try:
            more = peer.recv(HEAD_BYTES)
        except TimeoutError:
            if data:
                raise Refused("408 Request Timeout", "the request took too long") from None
            return None, b""
        if not more:
            return None, b""
        data += more
    peer.settimeout(STALL_SECONDS)
    head, _, rest = data.partition(b"\r\n\r\n")
    if len(head) > HEAD_BYTES:
        raise Refused("431 Request Header Fields Too Large", "the request is too long")
    return parse_request(head), rest


def parse_request(head: bytes) -> Request:
    """A request's first line and headers. Raises Refused where they are anything unusual."""
    try:
        first, *lines = head.decode("ascii").split("\r\n")
        method, target, version = first.split(" ")
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            name = name.lower()
            if not colon or not re.fullmatch(r"[a-z0-9-]+", name) or name in headers:
                raise ValueError(line)
            headers[name] = value.strip(" \t")
    except ValueError:
        raise Refused("400 Bad Request", "that is no HTTP request") from None
    if version != "HTTP/1.1" or not target.startswith("/") or re.search(r"[\0-\x20]", target):
        raise Refused("400 Bad Request", "that is no HTTP/1.1 request")
    path, _, query = target.partition("?")
    return Request(method, path, query, headers)


def _range(text: str, size: int | None) -> tuple[int, int]:
    """First byte and length of a Range header. Raises Refused."""
    found = _RANGE.fullmatch(text)
    last = None if found is None else int(found[2]) if found[2] else size and size - 1
    if found is None or last is None:
        raise Refused("416 Range Not Satisfiable", "give one range: bytes=FIRST-LAST")
    start = int(found[1])
    if last < start or (size is not None and last >= size):
        raise Refused("416 Range Not Satisfiable", f"the blob has {size} bytes")
    return start, last - start + 1


def _send_file(
    peer: ssl.SSLSocket, file: int, start: int, length: int, whole: int, *, partial: bool
) -> None:
    extra = f"Content-Range: bytes {start}-{start + length - 1}/{whole}\r\n" if partial else ""
    status = "206 Partial Content" if partial else "200 OK"
    _send(peer, _head(status, length, extra))
    end = start + length
    while start < end:
        data = os.pread(file, min(CHUNK, end - start), start)
        if not data:
            raise ConnectionError("the file has become shorter")
        _send(peer, data)
        start += len(data)


def _send_zeros(peer: ssl.SSLSocket, request: Request) -> None:
    found = re.fullmatch(r"bytes=([0-9]{1,12})", request.query, re.ASCII)
    if found is None or int(found[1]) > LINK_BYTES:
        raise Refused("400 Bad Request", f"say ?bytes=N, at most {LINK_BYTES}")
    left = int(found[1])
    _send(peer, _head("200 OK", left))
    zeros = memoryview(bytes(min(left, CHUNK)))
    while left:
        _send(peer, zeros[:left])
        left -= min(left, len(zeros))


def _swallow(peer: ssl.SSLSocket, request: Request, rest: bytes) -> bytes:
    """Reads a body of known length and forgets it. Returns what has come beyond it."""
    text = request.headers.get("content-length", "")
    if "transfer-encoding" in request.headers or not re.fullmatch(r"[0-9]{1,12}", text, re.ASCII):
        raise Refused("411 Length Required", "a body needs a Content-Length")
    if int(text) > LINK_BYTES:
        raise Refused("413 Content Too Large", f"at most {LINK_BYTES} bytes")
    left = int(text) - len(rest)
    buffer = bytearray(min(CHUNK, max(left, 1)))
    until = time.monotonic() + STALL_SECONDS
    while left > 0:
        count = peer.recv_into(buffer, min(left, len(buffer)))
        if not count or time.monotonic() > until:
            raise ConnectionError("the body did not come")
        left -= count
    _send(peer, _head("200 OK", 0))
    return rest[int(text) :]


def _send(peer: ssl.SSLSocket, data: bytes | memoryview) -> None:
    """Sends all; a peer that takes too long for it is gone. Raises OSError."""
    rest, until = memoryview(data), time.monotonic() + STALL_SECONDS
    while rest:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the peer takes too long")
        peer.settimeout(left)
        rest = rest[peer.send(rest) :]


def _say(peer: ssl.SSLSocket, status: str, message: str, *, close: bool = True) -> None:
    body = msgspec.json.encode(Trouble(message=message))
    extra = "Content-Type: application/json\r\n" + ("Connection: close\r\n" if close else "")
    _send(peer, _head(status, len(body), extra) + body)


def _head(status: str, length: int, extra: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{extra}\r\n".encode("ascii")
