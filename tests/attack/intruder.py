"""A fleet that is attacked, and the ways in: as a stranger, a node, a person, a local user."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from fleet_rig import Rig
from llamaforge.identity import contexts, folder, request
from llamaforge.identity.folder import About
from llamaforge.identity.names import COORDINATOR_HOST
from llamaforge.wire import api, fleet_file
from llamaforge.wire.endpoint import Endpoint
from llamaforge.wire.messages import Hello, Welcome
from llamaforge.wire.session import Frame

PATIENCE = 20.0
WAYS = ("stranger", "node", "person", "local")
SILENCE = 3.0
"""Seconds after which a request that was not whole is given up by its sender."""
BUGS = ("Traceback", "Error handling request", "made a mistake", "Task exception")


class Fleet:
    """A rig with a coordinator and one honest worker, and somebody with every kind of identity."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.identities: dict[str, Path] = {}

    def begin(self) -> None:
        self.rig.coordinator()
        self.rig.worker("honest")
        asyncio.run(self.rig.waiting("honest"))
        asyncio.run(self._join())

    @property
    def port(self) -> int:
        return fleet_file.read(self.rig.fleet_file).port

    @property
    def local(self) -> Endpoint:
        return Endpoint.of(fleet_file.read(self.rig.fleet_file))

    def endpoint(self, way: str) -> Endpoint:
        if way == "local":
            return self.local
        return Endpoint(host="127.0.0.1", port=self.port, identity=str(self.identities[way]))

    async def _join(self) -> None:
        async with self.local.open() as local:
            async with local.get(api.JOIN) as answer:
                self.authority = msgspec.json.decode(
                    await answer.read(), type=api.Certificate
                ).authority
            wish = api.TokenWish(role="person", name="mallory")
            async with local.post(api.TOKENS, data=msgspec.json.encode(wish)) as answer:
                token = msgspec.json.decode(await answer.read(), type=api.Token).token
            for way, name, ticket in (("node", "evil", ""), ("person", "mallory", token)):
                await self._enrol(local, way, name, ticket)

    async def _enrol(self, local: aiohttp.ClientSession, way: str, name: str, token: str) -> None:
        made = request.make()
        asks = api.JoinRequest(token=token, name=name, request=made.request)
        async with local.post(api.JOIN, data=msgspec.json.encode(asks)) as answer:
            body = await answer.read()
            assert answer.status == 200, body
        signed = msgspec.json.decode(body, type=api.Certificate)
        home = self.identities[way] = self.rig.root / f"identity-{way}"
        folder.save(
            home,
            key=made.key,
            certificate=signed.certificate,
            authority=self.authority,
            about=About(name=name),
        )

    def dial(self, way: str) -> socket.socket:
        """A connection over which anything can be said."""
        if way == "local":
            local = socket.socket(socket.AF_UNIX)
            local.settimeout(PATIENCE)
            local.connect(self.local.socket)
            return local
        bare = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        context = self.context(way)
        return context.wrap_socket(bare, server_hostname=COORDINATOR_HOST)

    def context(self, way: str) -> ssl.SSLContext:
        if way == "stranger":
            return contexts.newcomer(self.authority)
        return contexts.client(str(self.identities[way]))

    def say(self, way: str, data: bytes, *, whole: bool = True) -> int:
        """Sends bytes; returns the status of the answer, 0 when none came.

        With `whole` the bytes are a request, to which the coordinator owes an answer.
        """
        with self.dial(way) as there:
            there.settimeout(PATIENCE if whole else 0.1)
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                there.sendall(data)
            answer = b""
            try:
                while b"\r\n" not in answer:
                    got = there.recv(4096)
                    if not got:
                        break
                    answer += got
            except TimeoutError:
                assert not whole, f"no answer to {data[:300]!r}"
            except (ConnectionError, ssl.SSLError):
                pass
        line = answer.split(b"\r\n", 1)[0].split()
        return int(line[1]) if len(line) > 1 and line[0].startswith(b"HTTP/") else 0

    def check(self) -> None:
        """The coordinator lives, answers, and has met no mistake of its own."""
        assert self.rig.processes["coordinator"].poll() is None, self.rig.log("coordinator")
        log = self.rig.log("coordinator")
        for word in BUGS:
            assert word not in log, log[max(0, log.index(word) - 500) :][:4000]
        assert self.say("local", get(api.STATUS)) == 200
        assert self.say("stranger", get(api.HEALTH)) == 200


class Evil:
    """A node that says what it likes on its own, proper websocket."""

    def __init__(self, fleet: Fleet, **hello: Any) -> None:
        self.fleet, self.number = fleet, 0
        words = {"busy": "with evil", **hello}
        self.hello = Hello(node="evil", identity="e", session="s", cores=1, memory=1, **words)

    async def __aenter__(self) -> Evil:
        self.session = self.fleet.endpoint("node").open()
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.socket.close()
        await self.session.close()

    async def connect(self) -> None:
        """Comes as a new worker process."""
        self.number += 1
        self.sent = 0
        self.hello = msgspec.structs.replace(self.hello, session=f"s{self.number}")
        self.socket = await self.session.ws_connect(api.WORKERS, max_msg_size=0)
        await self.socket.send_str(msgspec.json.encode(self.hello).decode())
        said = await self.socket.receive_str(timeout=PATIENCE)
        msgspec.json.decode(said, type=Welcome)

    async def say(self, body: bytes) -> None:
        """Says one message; comes back where that costs the connection."""
        if self.socket.closed:
            await self.connect()
        self.sent += 1
        frame = Frame(number=self.sent, body=msgspec.Raw(body))
        with contextlib.suppress(ConnectionError):
            await self.socket.send_bytes(msgspec.json.encode(frame))

    async def hear(self, seconds: float = PATIENCE) -> Any:
        """The next message of the coordinator, as a dict."""
        data = await self.socket.receive_bytes(timeout=seconds)
        return msgspec.json.decode(data).get("body")


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
