"""A fleet that only exchanges blobs: real certificates, real TLS, real files, no workers."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response
from aiohttp.web_server import Server

from llamaforge.bundle.manifest import Entry, Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.identity import contexts, folder, request
from llamaforge.identity.authority import Authority, new_epoch
from llamaforge.identity.names import node_host, person_host
from llamaforge.spec.networks import parse_networks
from llamaforge.wire import api
from llamaforge.wire.endpoint import Endpoint
from llamaforge.wire.messages import Peer
from llamaforge.worker.coordinator_http import CoordinatorHttp, Neighbours
from llamaforge.worker.peer.door import Door
from llamaforge.worker.peer.entrance import Entrance
from llamaforge.worker.peer.guard import Guard
from llamaforge.worker.peer.port import both_families
from llamaforge.worker.peer.secure import SecurePort
from llamaforge.worker.peer.shelf import Shelf


def data_of(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def entry(path: str, data: bytes) -> Entry:
    return Entry(path=path, sha256=hashlib.sha256(data).hexdigest(), size=len(data))


async def _refuse(_: BaseRequest) -> Response:
    return Response(status=404)


class Fleet:
    """An authority, a coordinator that serves blobs, and nodes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.authority = Authority.open(root / "authority")
        self.store = BlobStore(root / "coordinator")
        self.asked: list[tuple[str, str]] = []
        """Digest and Range header of each request to the coordinator."""
        self.bytes = 0
        """That the coordinator was asked for."""
        self.lies: dict[str, Path] = {}
        """Files that the coordinator gives out for a digest, though they are others."""
        self.answer = 0
        """A status that the coordinator gives in place of blobs; 0: none."""
        self.members: set[str] = set()
        self.port = 0
        self._runner: web.AppRunner | None = None

    def identity(self, host: str, name: str, *, days: float = 30) -> Path:
        made = request.make()
        issued = self.authority.issue(host, made.request, epoch=new_epoch(), server=True, days=days)
        home = self.root / "identities" / name
        folder.save(
            home, key=made.key, certificate=issued.certificate, authority=self.authority.certificate
        )
        return home

    def person(self, name: str) -> Path:
        return self.identity(person_host(name), f"person-{name}")

    async def start(self) -> None:
        app = web.Application()
        app.add_routes([web.get(f"{api.BLOBS}/{{sha256}}", self._get)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        context = contexts.server(self.authority.own_identity(), required=False)
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=context)
        await site.start()
        assert site._server is not None
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _get(self, request: web.Request) -> web.StreamResponse:
        sha256 = request.match_info["sha256"]
        if self.answer:
            return web.Response(status=self.answer)
        asked = request.http_range
        self.asked.append((sha256, request.headers.get("Range", "")))
        path = self.lies.get(sha256) or self.store.path(sha256)
        self.bytes += (asked.stop or path.stat().st_size) - (asked.start or 0)
        return web.FileResponse(path)

    def endpoint(self, identity: Path) -> Endpoint:
        return Endpoint(host="127.0.0.1", port=self.port, identity=str(identity))


class Node:
    """One node: a store, and a port that serves it."""

    def __init__(self, fleet: Fleet, name: str, *, cache: Path | None = None) -> None:
        self.fleet, self.name = fleet, name
        self.store = BlobStore((cache or fleet.root / name) / "blobs")
        self.identity = fleet.identity(node_host(name), name)
        self.shelf = Shelf(self.store)
        fleet.members.add(name)
        self.port = 0
        self.secure = SecurePort(
            lambda: self.identity, lambda name: name in fleet.members, self.shelf
        )
        guard = Guard(parse_networks(""), tuple)
        inside: set[Door] = set()
        few = {"most": 16, "each": 16}
        self.entrance = Entrance(
            guard, lambda: Door(guard, Server(_refuse), inside, **few), self.secure
        )

    async def start(self) -> None:
        self.port = await self.entrance.open([both_families(0)])

    def stop(self) -> None:
        self.entrance.close()
        self.secure.stop()

    @property
    def peer(self) -> Peer:
        return Peer(node=self.name, address="127.0.0.1", port=self.port)

    def http(self, nodes: list[Node], **more: object) -> CoordinatorHttp:
        return CoordinatorHttp(
            lambda: self.fleet.endpoint(self.identity),
            neighbours=Neighbours(
                node=self.name,
                peers=tuple(node.peer for node in nodes),
                identity=str(self.identity),
            ),
            shelf=self.shelf,
            **more,  # type: ignore[arg-type]
        )

    async def fetch(self, manifest: Manifest, nodes: list[Node], **more: object) -> int:
        """Fetches what is missing. Returns the number of entries."""
        async with self.http(nodes, **more) as http:
            return len(await asyncio.wait_for(http.fetch_missing(manifest, self.store), 60))


@asynccontextmanager
async def fleet_of(root: Path, *names: str) -> AsyncIterator[tuple[Fleet, list[Node]]]:
    fleet = Fleet(root)
    await fleet.start()
    nodes = [Node(fleet, name) for name in names]
    for node in nodes:
        await node.start()
    try:
        yield fleet, nodes
    finally:
        for node in nodes:
            node.stop()
        await fleet.stop()
