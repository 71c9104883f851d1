"""A coordinator's control port in this process, both doors open, with identities at will."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
from aiohttp import web

from llamaforge.bundle.store import BlobStore
from llamaforge.coordinator.board import Board
from llamaforge.coordinator.http.doors import Doors
from llamaforge.coordinator.http.gate import Gate
from llamaforge.coordinator.http.joining import Joining
from llamaforge.coordinator.http.members import Kind, Members
from llamaforge.coordinator.http.server import Server
from llamaforge.coordinator.ledger import Ledger
from llamaforge.identity import folder, request
from llamaforge.identity.authority import Authority, new_epoch
from llamaforge.identity.folder import About
from llamaforge.identity.names import node_host, person_host
from llamaforge.spec.fleet import CoordinatorSettings
from llamaforge.wire import api
from llamaforge.wire.endpoint import Endpoint


class Control:
    """What serves, and the ways in."""

    def __init__(self, root: Path) -> None:
        self.root, self.state = root, root / "state"
        self.authority = Authority.open(self.state / "authority")
        self.ledger = Ledger.open(self.state / "ledger.db")
        self.store = BlobStore(root / "blobs")
        graces = {"node_grace": 1.0, "stop_seconds": 1.0, "return_grace": 1.0}
        self.board = Board(self.state, "me", "process", self.ledger, self.store, **graces)
        self.members = Members(self.ledger)
        self.members.on_out.append(self._sent_away)
        settings = CoordinatorSettings(
            state_dir=str(self.state),
            cache_dir=str(root / "cache"),
            runtime_dir=str(self.state),
            port=0,
        )
        self.doors = Doors(settings, self.authority)
        self.gate = Gate(self.members, self.doors.newcomers)
        self.joining = Joining(
            self.authority,
            self.ledger,
            self.members,
            address=self.doors.address,
            connected=lambda name: bool((n := self.board.nodes.get(name)) and n.connection),
        )
        status = api.Status(coordinator="me", version="0", pid=1, started=0)
        self.server = Server(self.board, self.store, self.gate, self.joining, lambda: status)

    @property
    def local(self) -> Endpoint:
        """The unix socket."""
        return Endpoint(socket=str(self.doors.socket))

    def endpoint(self, identity: Path | str = "") -> Endpoint:
        """The TLS port, for whoever has that identity."""
        return Endpoint(host="127.0.0.1", port=self.doors.port, identity=str(identity))

    def identity(self, kind: Kind, name: str, **how: object) -> Path:
        """A new member's identity; `how` goes to `Authority.issue`."""
        epoch = new_epoch()
        self.members.admit(kind, name, epoch, by="test")
        return self.forge(kind, name, epoch=epoch, **how)

    def forge(self, kind: Kind, name: str, **how: object) -> Path:
        """An identity that the register knows nothing of."""
        return issue(self.authority, self.root / f"{kind}-{name}-{len(how)}", kind, name, **how)

    def _sent_away(self, kind: str, name: str) -> None:
        if kind == "node":
            self.board.removed(name, "it was removed")


def issue(authority: Authority, home: Path, kind: Kind, name: str, **how: object) -> Path:
    """Writes an identity that an authority signs."""
    made = request.make()
    host = node_host(name) if kind == "node" else person_host(name)
    options = {"epoch": new_epoch(), "server": kind == "node", **how}
    signed = authority.issue(host, made.request, **options)  # type: ignore[arg-type]
    folder.save(
        home,
        key=made.key,
        certificate=signed.certificate,
        authority=authority.certificate,
        about=About(name=name),
    )
    return home


@contextlib.asynccontextmanager
async def control(root: Path) -> AsyncIterator[Control]:
    """Serves until the block ends."""
    made = Control(root)
    runner = web.AppRunner(made.server.app(), shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    working = asyncio.ensure_future(made.board.run())
    try:
        await made.doors.open(runner)
        yield made
    finally:
        working.cancel()
        made.doors.close()
        await runner.cleanup()
        made.ledger.close()


async def ask(
    session: aiohttp.ClientSession, method: str, path: str, data: bytes | None = None
) -> tuple[int, str]:
    """One request: status and text."""
    async with session.request(method, path, data=data) as answer:
        return answer.status, await answer.text()
