"""Trying to reach a TCP port, and saying which of the many ways of failing it was."""

from __future__ import annotations

import enum
import errno
import json
import socket
import ssl
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

_LINE = 1000
"""Bytes in one padding header; servers limit the length of a line."""
_RECORD = 22
"""Bytes that TLS 1.3 adds to what is sent in one piece (RFC 8446, 5.2): header, type and tag."""


class Contact(enum.Enum):
    """What became of a connection."""

    OPEN = "open"
    """It took the connection; it may have closed it at once, as a worker does with strangers."""
    REFUSED = "refused"
    """The machine answers; nothing listens there, or a firewall rejects."""
    SILENT = "silent"
    """No answer at all: a firewall drops, or the machine is off behind a router."""
    NO_ROUTE = "no route"
    """This machine does not know the way."""
    NO_HOST = "no host"
    """It is on the way, and nobody has that address, or a firewall forbids it."""

    @classmethod
    def of(cls, why: OSError) -> Contact:
        """The kind of a failed connect."""
        if why.errno == errno.ECONNRESET:
            return cls.OPEN
        if why.errno == errno.ECONNREFUSED:
            return cls.REFUSED
        if why.errno in (errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EINVAL):
            return cls.NO_ROUTE
        if why.errno in (errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.EACCES, errno.EPERM):
            return cls.NO_HOST
        return cls.SILENT


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    body: bytes
    date: float | None
    """What the server's clock says, Unix time in whole seconds; None where it doesn't say."""

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; empty where it is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def connect(address: str, port: int, seconds: float) -> Contact:
    """Opens a TCP connection and closes it again.

    Args:
        address: an IP address.
        port: a TCP port.
        seconds: to wait; the kernel needs 3 to know that nobody has an address.
    """
    try:
        socket.create_connection((address, port), seconds).close()
    except OSError as why:
        return Contact.of(why)
    return Contact.OPEN


def ask(
    address: str, port: int, path: str, *, padding: int, seconds: float, tls: bool = False
) -> Answer | None:
    """One HTTP GET over a connection of its own; see `Machine.ask`."""
    head = f"GET {path} HTTP/1.1\r\nHost: {_bracketed(address)}:{port}\r\nConnection: close\r\n"
    padding -= _RECORD if tls else 0
    try:
        with _line(address, port, seconds, tls=tls) as line:
            line.settimeout(seconds)
            line.sendall((head + _padding(padding - len(head) - 2) + "\r\n").encode())
            received = b""
            while len(received) < 1 << 20 and (piece := line.recv(65536)):
                received += piece
    except OSError:
        return None
    return parse(received)


def _line(address: str, port: int, seconds: float, *, tls: bool) -> socket.socket:
    """A connection. Nobody's certificate is looked at: only a clock is read and packets counted,
    and doctor shows no certificate of its own."""
    line = socket.create_connection((address, port), seconds)
    if not tls:
        return line
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        return context.wrap_socket(line)
    except OSError:
        line.close()
        raise


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _padding(length: int) -> str:
    """Headers without a meaning, `length` bytes in all where that is possible."""
    lines = ""
    while length - len(lines) > 10:
        size = min(_LINE, length - len(lines))
        size -= 12 if 0 < length - len(lines) - size <= 10 else 0
        lines += "X-Pad: " + "x" * (size - 9) + "\r\n"
    return lines


def parse(received: bytes) -> Answer | None:
    """Reads an HTTP answer; None where it is not one."""
    head, found, body = received.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split()
    if not found or len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
        return None
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines[1:])
    }
    return Answer(int(words[1]), body, _date(headers.get("date", "")))


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError):
        return None
