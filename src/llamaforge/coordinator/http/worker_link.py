"""The coordinator's end of a worker's websocket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random

import msgspec
from aiohttp import WSMsgType, web

from llamaforge.coordinator.http import hearsay
from llamaforge.coordinator.http.gate import CALLER, Caller
from llamaforge.coordinator.node import Node
from llamaforge.coordinator.nodes import Nodes
from llamaforge.wire.messages import FRAME_LIMIT, Hello, Refusal, Welcome

HEARTBEAT = 2.8
"""Seconds of silence until a ping; a peer that doesn't answer within half of that is disconnected,
so a loss is noticed within 5 s on a busy machine too."""
SPREAD = 0.85
"""Heartbeats are shortened by down to this factor: with equal ones, whatever delays many workers'
pings once has them all come at the same moment from then on."""
GREETING_SECONDS = 10.0

log = logging.getLogger("llamaforge.coordinator")


async def serve_worker(request: web.Request, nodes: Nodes) -> web.WebSocketResponse:
    """Carries one worker's session for as long as this websocket lives."""
    heartbeat = HEARTBEAT * random.uniform(SPREAD, 1)
    socket = web.WebSocketResponse(heartbeat=heartbeat, max_msg_size=FRAME_LIMIT, compress=False)
    await socket.prepare(request)
    try:
        first = await socket.receive_str(timeout=GREETING_SECONDS)
        hello = msgspec.json.decode(first, type=Hello)
    except (TypeError, asyncio.TimeoutError, msgspec.MsgspecError, RecursionError) as why:
        log.info("%s sent no greeting: %s", request.remote, why)
        await socket.close()
        return socket
    caller: Caller = request[CALLER]
    if caller.kind != "node" or caller.name != hello.node:
        refusal = f"{caller} can't be the worker of node {hello.node[:80]!r}"
        await _say(socket, Refusal(reason=refusal))
        await socket.close()
        return socket
    node, answer = nodes.greet(hello)
    await nodes.durable()
    await _say(socket, answer)
    if node is None or not isinstance(answer, Welcome):
        await socket.close()
        return socket
    goes_on = answer.resumed and hello.process == answer.process
    await _carry(socket, nodes, node, hello.received if goes_on else 0)
    return socket


async def _say(socket: web.WebSocketResponse, answer: Welcome | Refusal) -> None:
    with contextlib.suppress(ConnectionError):
        await socket.send_str(msgspec.json.encode(answer).decode())


async def _carry(
    socket: web.WebSocketResponse, nodes: Nodes, node: Node, peer_received: int
) -> None:
    """Both directions, until the websocket is gone."""
    nodes.connect(node, socket)
    writer = asyncio.ensure_future(node.session.write(socket, peer_received))
    try:
        with contextlib.suppress(ConnectionError):  # it broke while a ping was being answered
            async for frame in socket:
                if node.connection is not socket:  # the worker came back on a newer one
                    break
                if frame.type in (WSMsgType.BINARY, WSMsgType.TEXT):
                    message = node.session.take(frame.data)
                    if message is not None:
                        hearsay.check(message)
                        nodes.take(node, message)
    except (msgspec.MsgspecError, RecursionError) as why:
        log.warning("node %s said something that can't be understood: %s", node.name, why)
    finally:
        writer.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await writer
        nodes.disconnect(node, socket)
        await socket.close()
