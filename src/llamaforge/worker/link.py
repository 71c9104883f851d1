"""The worker's connection to its coordinator: dialled for ever, quietly; a blip loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable

import aiohttp
import msgspec

from llamaforge.errors import FleetError, LlamaForgeError
from llamaforge.identity import trouble
from llamaforge.spec.fleet import WorkerSettings
from llamaforge.wire import api
from llamaforge.wire.endpoint import Endpoint
from llamaforge.wire.messages import (
    FRAME_LIMIT,
    FromCoordinator,
    FromWorker,
    Hello,
    RankLog,
    Refusal,
    Welcome,
)
from llamaforge.wire.refused import REFUSAL
from llamaforge.wire.session import Session
from llamaforge.worker.enrol import enrol, find_coordinator
from llamaforge.worker.renewal import keep_fresh

HEARTBEAT = 4.0
"""Seconds between pings."""
GREETING_SECONDS = 10.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds between two tries to dial: doubled from the first to the longest, less a random part."""
MOST_BACKLOG = 2000
"""Unacknowledged messages beyond which lines of ranks' output are dropped."""

log = logging.getLogger("llamaforge.worker")


class Link:
    """The connection.

    Args:
        settings: tells where the coordinator is; asked at every dial, since a reload changes it.
        hello: makes the greeting; its session fields are filled in here.
        heard: told every message of the coordinator.
        abandoned: told when the coordinator knows nothing (any more) of what runs here.
    """

    def __init__(
        self,
        settings: Callable[[], WorkerSettings],
        *,
        hello: Callable[[str], Hello],
        heard: Callable[[FromCoordinator], None],
        abandoned: Callable[[], None],
    ) -> None:
        self._settings, self._hello = settings, hello
        self._heard, self._abandoned = heard, abandoned
        self._session = self._new_session()
        self._coordinator = self._process = ""
        self._refused = False
        self.said = ""
        """What it said last about the connection, for people."""
        self.connected = False
        """Whether the coordinator is there now."""
        self.target: Endpoint | None = None
        """The coordinator that was dialled last."""
        self.address = ""
        """IP address of this node that routes to it."""

    def send(self, message: FromWorker) -> None:
        """Tells the coordinator something, now or when it is back."""
        if isinstance(message, RankLog) and self._session.backlog > MOST_BACKLOG:
            return
        self._session.send(message)

    async def flush(self, seconds: float) -> None:
        """Waits, no longer than that, until everything has been written."""
        until = time.monotonic() + seconds
        while self._session.unwritten and time.monotonic() < until:
            await asyncio.sleep(0.02)

    async def run(self) -> None:
        """Dials for ever."""
        pause = FIRST_PAUSE
        while True:
            try:
                self.target = find_coordinator(self._settings())
                await enrol(self._settings(), refused=self._refused)
                await self._dial(self.target)
                pause = FIRST_PAUSE
            except LlamaForgeError as why:
                now = self._settings()
                alone = self.target is None and now.coordinator is None
                quietly = alone and now.master_addr is not None
                self._tell(f"waiting: {why.message}", quietly=quietly)
            except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as why:
                if self.connected:
                    pause = FIRST_PAUSE
                self._refused = _is_refused(why)
                self._tell(_unreachable(self.target, why))
            finally:
                self.connected = False
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _dial(self, target: Endpoint) -> None:
        """One connection, until it ends. Raises when there is none or it breaks."""
        timeout = aiohttp.ClientTimeout(
            total=None,
            sock_connect=GREETING_SECONDS,
            sock_read=GREETING_SECONDS,  # until the websocket stands; from then on pings tell
        )
        async with (
            target.open(timeout=timeout) as http,
            http.ws_connect(api.WORKERS, heartbeat=HEARTBEAT, max_msg_size=FRAME_LIMIT) as socket,
        ):
            self.address = self._settings().address or _own_address(socket)
            welcome = await self._greet(socket)
            if not welcome.resumed:
                self._begin(welcome)
            elif welcome.process != self._process:
                self._session.restart()  # the same fleet, whose coordinator was started again
            self._process = welcome.process
            self.connected, self._refused = True, False
            self._tell(f"connected to {target.host}:{target.port}")
            freshness = asyncio.ensure_future(keep_fresh(target))
            try:
                await self._carry(socket, welcome.received if welcome.resumed else 0)
            finally:
                freshness.cancel()
        raise ConnectionError("the coordinator closed the connection")

    async def _greet(self, socket: aiohttp.ClientWebSocketResponse) -> Welcome:
        hello = msgspec.structs.replace(
            self._hello(self.address),
            coordinator=self._coordinator,
            process=self._process,
            received=self._session.received,
        )
        await socket.send_str(msgspec.json.encode(hello).decode())
        try:
            text = await socket.receive_str(timeout=GREETING_SECONDS)
            answer = msgspec.json.decode(text, type=Welcome | Refusal)
        except (TypeError, msgspec.MsgspecError) as why:
            raise FleetError(f"what listens there is not a coordinator: {why}") from why
        if isinstance(answer, Refusal):
            raise FleetError(f"the coordinator refuses this worker: {answer.reason}")
        return answer

    async def _carry(self, socket: aiohttp.ClientWebSocketResponse, peer_received: int) -> None:
        writer = asyncio.ensure_future(self._session.write(socket, peer_received))
        try:
            async for frame in socket:
                if frame.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
                    message = self._session.take(frame.data)
                    if message is not None:
                        self._heard(message)
        except msgspec.MsgspecError as why:
            raise FleetError(f"the coordinator can't be understood: {why}") from why
        finally:
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await writer

    def _begin(self, welcome: Welcome) -> None:
        """A new session; what belonged to the old one is nobody's now."""
        self._session = self._new_session()
        self._coordinator = welcome.coordinator
        self._abandoned()

    def _new_session(self) -> Session[FromWorker, FromCoordinator]:
        return Session(FromCoordinator)

    def _tell(self, text: str, *, quietly: bool = False) -> None:
        """One line in the log for each change, however often it is tried.

        A worker that only waits for torchrun misses no coordinator.
        """
        if text != self.said:
            self.said = text
            log.log(logging.DEBUG if quietly else logging.INFO, "%s", text)


def _is_refused(why: BaseException) -> bool:
    """Whether the coordinator is there, and does not take this worker's certificate."""
    if isinstance(why, aiohttp.WSServerHandshakeError):
        return why.status in (401, 403)
    return "expired" in (trouble.explain(why) or "")


def _unreachable(target: Endpoint | None, why: BaseException) -> str:
    where = f"{target.host}:{target.port}" if target else "the coordinator"
    if isinstance(why, aiohttp.WSServerHandshakeError):
        said = why.headers.get(REFUSAL) if why.headers else None
        return f"waiting: the coordinator at {where} refuses this worker: {said or why.status}"
    if (words := trouble.explain(why)) is not None:
        return f"waiting: the coordinator at {where} can't be talked to: {words}"
    return f"waiting: nothing answers at {where}; dialling until the coordinator is there"


def _own_address(socket: aiohttp.ClientWebSocketResponse) -> str:
    name = socket.get_extra_info("sockname")
    return str(name[0]) if name else ""
