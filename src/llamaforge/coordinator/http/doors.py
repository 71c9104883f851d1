"""Where the coordinator listens: a unix socket for people here, TLS on TCP for everybody else."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import logging
import os
import socket
import ssl
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from aiohttp import web

from llamaforge import __version__
from llamaforge.coordinator.http.gate import service_group
from llamaforge.errors import FleetError, UserError
from llamaforge.identity import contexts
from llamaforge.identity.authority import Authority
from llamaforge.identity.buffers import small_buffers
from llamaforge.paths import writing_state
from llamaforge.spec.fleet import CoordinatorSettings
from llamaforge.wire.listener import who_listens

SOCKET = "control.sock"
LONGEST_PATH = 107
"""Bytes in the path of a unix socket (sun_path in unix(7), less its end)."""
HANDSHAKE_SECONDS = 15.0
"""How long a client may take to shake hands."""
FIRST_REQUEST_SECONDS = 30.0
"""How long a connection may stand without a whole request: nobody holds thousands for nothing."""
BACKLOG = 4096
"""Connections that wait to be taken: a whole fleet may come back at once."""
RENEW_SECONDS = 6 * 3600.0
"""How often the coordinator looks whether its own certificate is due."""
SAY_SECONDS = 60.0
"""One line in the log about failed handshakes of one kind in this time."""
_ALL = ("::", "0.0.0.0")
_OUTSIDE = ("192.0.2.1", 9)
"""An address that no machine has (RFC 5737): the route to it is the one outward."""
_GET_ADDRESS = 0x8915
"""SIOCGIFADDR (netdevice(7)): the IPv4 address of an interface."""

log = logging.getLogger("llamaforge.coordinator")


class Doors:
    """Both doors.

    Args:
        settings: host and port, and the folder for the socket.
        authority: gives the certificate that is shown.
    """

    def __init__(self, settings: CoordinatorSettings, authority: Authority) -> None:
        self._settings, self._authority = settings, authority
        self._context: ssl.SSLContext | None = None
        self._server: asyncio.Server | None = None
        self.newcomers: set[int] = set()
        """Connections that have not asked for anything yet, by the id of their protocol."""
        self.port = 0
        """The control port that was bound."""
        self.socket = _socket_path(Path(settings.runtime_dir))
        """The unix socket."""

    async def open(self, runner: web.AppRunner) -> None:
        """Listens at both.

        Raises:
            UserError: the port is taken, or the address isn't this machine's.
            Occupied: the folder of the socket can't be written.
        """
        small_buffers()
        with writing_state(self.socket.parent):
            local = _bind_local(self.socket)
        await web.SockSite(runner, local).start()
        home = await asyncio.to_thread(self._authority.own_identity)
        self._context = contexts.server(home, required=False)
        self._context.sslobject_class = _Handshake
        serve = runner.server
        assert serve is not None
        try:
            self._server = await _listen(lambda: self._meet(serve), self._settings, self._context)
        except OSError as why:
            raise _no_port(self._settings, why) from why
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def renew(self) -> None:
        """Renews the certificate that is shown, for ever; open connections don't notice."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                home = await asyncio.to_thread(self._authority.own_identity)
                if self._context is not None:
                    contexts.load(self._context, home)
            except (OSError, FleetError) as why:
                log.warning("the coordinator's certificate can't be renewed now: %s", why)

    def reconfigure(self, settings: CoordinatorSettings) -> None:
        """Settings that were read again; what it listens on stays."""
        self._settings = settings

    def _meet(self, serve: web.Server) -> asyncio.Protocol:
        """A new connection, which leaves unless it asks for something soon."""
        visitor = serve()
        self.newcomers.add(id(visitor))
        loop = asyncio.get_running_loop()
        loop.call_later(FIRST_REQUEST_SECONDS, self._part, visitor)
        return visitor

    def _part(self, visitor: web.RequestHandler) -> None:
        if id(visitor) in self.newcomers:
            self.newcomers.discard(id(visitor))
            if isinstance(visitor.transport, asyncio.Transport):
                visitor.transport.abort()

    def close(self) -> None:
        """Takes no new connections."""
        if self._server is not None:
            self._server.close()
        self.socket.unlink(missing_ok=True)

    def address(self) -> str:
        """HOST:PORT at which other machines reach this one, as far as can be told from here."""
        if self._settings.public is not None:
            bare = self._settings.public
            return bare if _has_port(bare) else f"{bare}:{self.port}"
        host = self._settings.host
        if host in _ALL:
            host = _outward()
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


class _Handshake(ssl.SSLObject):
    """Says in the log why a handshake failed, and lets the client hear it, too.

    asyncio would hang up without sending what TLS has to say, so that a client whose certificate
    has expired could not tell that from a coordinator that isn't there.
    """

    _said: ClassVar[dict[str, float]] = {}
    _failed: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        """Shakes hands; called until it is done."""
        if self._failed is not None:
            raise self._failed
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as why:
            self._say(why)
            if not isinstance(why, ssl.SSLCertVerificationError):
                raise
            self._failed = why
            # what is left to say is sent whenever more is to be read
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the alert is on its way") from why

    def _say(self, why: ssl.SSLError) -> None:
        reason, now = why.reason or "?", time.monotonic()
        if now - self._said.get(reason, -SAY_SECONDS) < SAY_SECONDS:
            return
        self._said[reason] = now
        if reason == "HTTP_REQUEST":
            log.warning(
                "somebody spoke plain HTTP to the control port, which speaks TLS: if it is an "
                "older worker, update it to LlamaForge %s and let it join",
                __version__,
            )
        elif isinstance(why, ssl.SSLCertVerificationError):
            log.warning("refused a certificate: %s", why.verify_message)
        else:
            log.info("a client did not shake hands: %s", reason.lower().replace("_", " "))


def _socket_path(folder: Path) -> Path:
    """The socket in that folder, or, where its path would be too long, in one of this user's own.

    The other folder has a name that follows from the first, so that it is found after a restart.
    """
    path = folder.absolute() / SOCKET
    if len(os.fsencode(path)) <= LONGEST_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"llamaforge-{os.geteuid()}-{digest}" / SOCKET


def _bind_local(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.parent.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (0, os.geteuid()):
        raise UserError(f"the folder {path.parent} belongs to somebody else")
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)
        try:
            listening.bind(os.fspath(path))
        finally:
            os.umask(before)
        if service_group() is not None:
            path.chmod(0o660)
    except BaseException:
        listening.close()
        raise
    return listening


async def _listen(
    server: Callable[[], asyncio.Protocol], settings: CoordinatorSettings, context: ssl.SSLContext
) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    if settings.host == "::" and socket.has_dualstack_ipv6():
        both = socket.create_server(
            ("::", settings.port), family=socket.AF_INET6, dualstack_ipv6=True
        )
        return await loop.create_server(
            server,
            sock=both,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            backlog=BACKLOG,
        )
    host = "0.0.0.0" if settings.host == "::" else settings.host
    return await loop.create_server(
        server,
        host,
        settings.port,
        ssl=context,
        ssl_handshake_timeout=HANDSHAKE_SECONDS,
        backlog=BACKLOG,
    )


def _no_port(settings: CoordinatorSettings, why: OSError) -> UserError:
    if why.errno != errno.EADDRINUSE:
        return UserError(
            f"can't listen on {settings.host}:{settings.port}: {why.strerror}",
            hint="choose another --host or --port",
        )
    owner = who_listens(settings.port)
    return UserError(
        f"port {settings.port} is in use{f' by {owner}' if owner else ''}",
        hint="choose another one with --port, or 0 for any free one",
    )


def _has_port(text: str) -> bool:
    return text.rpartition("]")[2].count(":") == 1


def _outward() -> str:
    """This machine's address on the way outward; without such a way, on its first interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_OUTSIDE)
            return str(probe.getsockname()[0])
        except OSError:
            return _of_first_interface(probe) or socket.gethostname()


def _of_first_interface(probe: socket.socket) -> str:
    for _, name in socket.if_nameindex():
        try:
            asked = fcntl.ioctl(probe, _GET_ADDRESS, name.encode()[:15].ljust(40, b"\0"))
        except OSError:
            continue  # it has no IPv4 address
        address = socket.inet_ntoa(asked[20:24])
        if not address.startswith("127."):
            return address
    return ""
