"""The fleet over HTTP: its status, its workers, what people wish of nodes, and its events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from aiohttp import web

from llamaforge.coordinator.board import Board
from llamaforge.coordinator.http.answers import as_json
from llamaforge.coordinator.http.gate import CALLER
from llamaforge.coordinator.http.joining import Joining
from llamaforge.coordinator.http.worker_link import serve_worker
from llamaforge.wire import api

LOOK_SECONDS = 0.2
"""Between two looks for new events by a follower."""
BATCH = 1000
"""Events that are read at once."""


class FleetRoutes:
    """Answers requests about the fleet.

    Args:
        board: the jobs and nodes.
        joining: removes nodes.
        status: tells what `GET /v1/status` answers.
    """

    def __init__(self, board: Board, joining: Joining, status: Callable[[], api.Status]) -> None:
        self._board, self._joining, self._status = board, joining, status

    def routes(self) -> list[web.RouteDef]:
        """What it answers."""
        return [
            web.get(api.HEALTH, self._health),
            web.get(api.STATUS, self._get_status),
            web.get(api.WORKERS, self._worker),
            web.post(f"{api.NODES}/{{name}}", self._wish),
            web.get(api.EVENTS, self._events),
        ]

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _get_status(self, _: web.Request) -> web.Response:
        return as_json(self._status())

    async def _worker(self, request: web.Request) -> web.StreamResponse:
        return await serve_worker(request, self._board.nodes)

    async def _wish(self, request: web.Request) -> web.Response:
        wish = msgspec.json.decode(await request.read(), type=api.NodeWish)
        name, by = request.match_info["name"], str(request[CALLER])
        if wish.wish == "remove":
            self._joining.remove_node(name, wish.reason or f"removed by {by}", by)
        else:
            self._board.wish(name, wish, by)
        return as_json(self._status())

    async def _events(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        text = query.get("after", "0")
        after = int(text) if text.isdecimal() and len(text) < 16 else 0
        kind, subject = query.get("kind") or None, query.get("subject") or None
        ledger = self._board.ledger
        answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await answer.prepare(request)
        silent = 0.0
        while True:
            newest = ledger.last_event
            events = ledger.events(after, BATCH, kind, subject)
            for event in events:
                await answer.write(msgspec.json.encode(event) + b"\n")
            if len(events) == BATCH:
                after = events[-1].number
                continue
            after = max(after, newest)
            if query.get("follow") != "1":
                break
            while ledger.last_event <= after:
                await asyncio.sleep(LOOK_SECONDS)
                silent += LOOK_SECONDS
                if silent >= api.STREAM_BEAT:
                    await answer.write(b"\n")
                    silent = 0.0
        await answer.write_eof()
        return answer
