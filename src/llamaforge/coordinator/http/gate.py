"""Who asks, and whether they may: on a unix socket by the kernel's word, on TCP by certificate.

| caller | known by | may |
|---|---|---|
| local | the socket's peer: root, this user, members of the service's group | everything |
| person | a certificate with its name | jobs, files and nodes, but no tokens and no people |
| node | a certificate with its name | be a worker, fetch blobs, send what its jobs make |
| stranger | – | `/health`, and to join |

The register is asked at every request, so that who was removed is refused at once; what it has
open then is cut.
"""

from __future__ import annotations

import contextlib
import grp
import logging
import os
import pwd
import re
import socket
import ssl
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
from aiohttp import web

from llamaforge.coordinator.http.members import Kind, Members
from llamaforge.errors import FleetError
from llamaforge.identity.authority import epoch_of
from llamaforge.identity.names import role_of
from llamaforge.spec.networks import canonical
from llamaforge.wire import api
from llamaforge.wire.refused import REFUSAL

GROUP = "llamaforge"
"""Whose members may use the service's coordinator on its machine."""
WORKER_USER = "llamaforge"
"""As whom the worker's service runs other people's programs; its group is that of the members."""

_PEER_GROUPS = 59
"""SO_PEERGROUPS (asm-generic/socket.h): the groups of whoever connected."""
_MOST_GROUPS = 256
"""Groups of one caller that the kernel is asked for: Python's getsockopt takes 1,024 bytes."""
_WORKER_CGROUP = "llamaforge-worker.service"
MOST_STRANGERS = 256
"""Addresses that the log names for having been refused."""

_JOB = re.escape(api.JOBS) + r"/[^/]+"
_OF_NODES: tuple[tuple[str, str], ...] = (
    ("GET", re.escape(api.WORKERS)),
    ("POST", re.escape(api.RENEW)),
    ("POST", re.escape(api.JOIN)),
    ("GET|HEAD", re.escape(api.BLOBS) + r"/[^/]+"),
    ("PUT", _JOB + r"/artifacts/.+"),
    ("POST|PUT", _JOB + r"/checkpoints/.+"),
)
"""What a node may ask for; everything else is people's."""
_NOT_OF_PEOPLE: tuple[tuple[str, str], ...] = (
    (".*", re.escape(api.WORKERS)),
    (".*", re.escape(api.TOKENS)),
    (".*", re.escape(api.PEOPLE) + r"(/.*)?"),
    (".*", _JOB + r"/artifacts/.+"),
    ("POST|PUT", _JOB + r"/checkpoints/.+"),
)
"""What people may only do on the coordinator's machine, or not at all."""

log = logging.getLogger("llamaforge.coordinator")


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who sent a request."""

    kind: Literal["local", "person", "node", "stranger"]
    name: str = ""
    """Of the user, the person or the node."""
    uid: int = -1
    """User id of a local caller."""
    epoch: str = ""
    """Which joining its certificate comes from."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind

    @property
    def own(self) -> bool:
        """Whether it is the coordinator's own user, or root, on this machine."""
        return self.kind == "local" and self.uid in (0, os.geteuid())


CALLER: Any = web.RequestKey("caller", Caller) if hasattr(web, "RequestKey") else "caller"
"""Under this key a request carries its `Caller`."""


class Refused(FleetError):
    """A request that is not answered; with the HTTP status that says so."""

    def __init__(self, status: int, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status

    @property
    def header(self) -> dict[str, str]:
        """The reason as a header."""
        text = f"{self.message}; {self.hint}" if self.hint else self.message
        plain = text.encode("ascii", "replace").decode().replace("\n", "; ")
        return {REFUSAL: "".join(c if c.isprintable() else "?" for c in plain)[:1000]}


class Gate:
    """The gate.

    Args:
        members: who belongs to the fleet.
        newcomers: connections that have not asked for anything yet; see `Doors`.
    """

    def __init__(self, members: Members, newcomers: set[int] | None = None) -> None:
        self._members = members
        self._newcomers = newcomers if newcomers is not None else set()
        self._inside: dict[tuple[str, str], dict[int, web.Request]] = {}
        self._strangers: set[str] = set()
        members.on_out.append(self._cut)

    @contextlib.contextmanager
    def inside(self, request: web.Request) -> Iterator[Caller]:
        """Lets a request in for as long as it is answered, or cut off.

        Raises:
            Refused: its sender may not ask for that.
        """
        self._newcomers.discard(id(request.protocol))
        caller = self.caller(request)
        try:
            self._check(caller, request)
        except Refused as why:
            self._tell(caller, request, why)
            raise
        request[CALLER] = caller
        key = (caller.kind, caller.name.lower())
        self._inside.setdefault(key, {})[id(request)] = request
        try:
            yield caller
        finally:
            there = self._inside.get(key, {})
            there.pop(id(request), None)
            if not there:
                self._inside.pop(key, None)

    def caller(self, request: web.Request) -> Caller:
        """Who sent a request, whether or not it may.

        Raises:
            Refused: somebody on this machine who has no business here.
        """
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has left")
        encrypted = transport.get_extra_info("ssl_object")
        if encrypted is not None:
            return _by_certificate(encrypted)
        stream: socket.socket | None = transport.get_extra_info("socket")
        if stream is not None and stream.family == socket.AF_UNIX:
            return _by_credentials(stream)
        return Caller(kind="stranger")

    def _check(self, caller: Caller, request: web.Request) -> None:
        asked = f"{request.method} {request.path}"
        if request.path in (api.HEALTH, api.JOIN) or caller.kind == "local":
            return
        if caller.kind == "stranger":
            raise Refused(
                401,
                "no certificate of this fleet came with the request",
                hint="join it: sudo llamaforge worker join HOST:PORT, or for a person llamaforge "
                "login HOST:PORT; a token for it: llamaforge coordinator token, on the "
                "coordinator's machine",
            )
        if why := self._members.refusal(caller.kind, caller.name, caller.epoch):
            verb = "worker join" if caller.kind == "node" else "login"
            raise Refused(
                403, why, hint=f"join again with a new token: llamaforge {verb} HOST:PORT"
            )
        if caller.kind == "node" and not _matches(request, _OF_NODES):
            raise Refused(403, f"a node may not ask for {asked}")
        if caller.kind == "person" and _matches(request, _NOT_OF_PEOPLE):
            raise Refused(
                403,
                f"{caller} may not ask for {asked}",
                hint="who may, is on the coordinator's machine: root, its user, or a member of "
                f"the group {GROUP}",
            )

    def _cut(self, kind: Kind, name: str) -> None:
        """Closes everything that somebody has open."""
        for request in list(self._inside.get((kind, name.lower()), {}).values()):
            if request.transport is not None:
                request.transport.abort()

    def _tell(self, caller: Caller, request: web.Request, why: Refused) -> None:
        """One line in the log for each address."""
        address = address_of(request)
        if address not in self._strangers and len(self._strangers) < MOST_STRANGERS:
            self._strangers.add(address)
            log.warning("refused %s at %s: %s", caller, address, why.message)


def address_of(request: web.Request) -> str:
    """Where a request comes from, as people write it."""
    remote = request.remote
    if not remote:
        return "this machine"
    try:
        return str(canonical(remote))
    except ValueError:
        return remote


def _matches(request: web.Request, rules: tuple[tuple[str, str], ...]) -> bool:
    return any(
        re.fullmatch(method, request.method) and re.fullmatch(path, request.path)
        for method, path in rules
    )


def _by_certificate(encrypted: ssl.SSLObject) -> Caller:
    shown = encrypted.getpeercert() or {}
    alternatives: Any = shown.get("subjectAltName", ())
    names = [str(value) for kind, value in alternatives if kind == "DNS"]
    role = role_of(names[0]) if len(names) == 1 else None
    if role is None or role.kind == "coordinator":
        return Caller(kind="stranger")
    epoch = epoch_of(int(str(shown.get("serialNumber", "0")), 16))
    return Caller(kind=role.kind, name=role.name, epoch=epoch)


def _by_credentials(stream: socket.socket) -> Caller:
    pid, uid, gid = _credentials(stream)
    caller = Caller(kind="local", name=_user(uid), uid=uid)
    ranks_user = caller.name == WORKER_USER and not caller.own
    if uid != 0 and (ranks_user or _is_rank(pid)):
        raise Refused(403, "what runs below a worker may not give its coordinator orders")
    if caller.own or service_group() in {gid, *_groups(stream, caller.name, gid)}:
        return caller
    raise Refused(
        403,
        f"{caller.name} is neither root nor this coordinator's user nor in the group {GROUP}",
        hint=f"sudo usermod --append --groups {GROUP} {caller.name}, and log in again",
    )


def _credentials(stream: socket.socket) -> tuple[int, int, int]:
    """Process, user and group of whoever connected: SO_PEERCRED, unix(7)."""
    pid, uid, gid = array("i", stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid, gid


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def service_group() -> int | None:
    """The group whose members may come: the coordinator's own, where it is the service's."""
    try:
        group = grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return None
    return group if os.getegid() == group else None


def _groups(stream: socket.socket, user: str, gid: int) -> list[int]:
    """The groups of whoever connected; of who has too many, those that the user's account has."""
    try:
        data = stream.getsockopt(socket.SOL_SOCKET, _PEER_GROUPS, _MOST_GROUPS * 4)
    except OSError:
        try:
            return os.getgrouplist(user, gid)
        except OSError:
            return []
    return list(array("I", data))


def _is_rank(pid: int) -> bool:
    """Whether a process belongs to the worker's service, which runs other people's programs.

    One that can't be looked at any more is taken for such a one: it may have passed its
    connection on.
    """
    if _WORKER_CGROUP in _own_cgroup():
        return False
    try:
        return _WORKER_CGROUP in _cgroup(pid)
    except OSError:
        return True


def _own_cgroup() -> str:
    """Where this process is; as in the worker's service where that can't be told."""
    try:
        return _cgroup(os.getpid())
    except OSError:
        return _WORKER_CGROUP


def _cgroup(pid: int) -> str:
    """A process's control groups. Raises OSError when it is gone."""
    return Path(f"/proc/{pid}/cgroup").read_text()
