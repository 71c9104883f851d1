"""How well this node reaches the peer ports of others: whether at all, how soon, and how fast.

Every peer is dialled as ranks and blobs will need it: at the address that its worker named, over
the fleet's mutual TLS. A speed is measured over a few megabytes at most, and believed for a while.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import aiohttp
import msgspec

from llamaforge.errors import FleetError
from llamaforge.identity.names import node_host
from llamaforge.wire.endpoint import Endpoint
from llamaforge.wire.messages import LinkSpeed, Peer

PATH = "/v1/link"
"""Of a peer port: `GET /v1/link?bytes=N` answers with so many bytes."""
MOST_BYTES = 8 << 20
MOST_SECONDS = 0.25
CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 5.0
"""For a whole measurement."""
GOOD_FOR = 600.0
"""Seconds after which a link is measured again."""
AT_ONCE = 8
"""Links that are measured at a time: they share this node's line."""

_CHUNK = 1 << 16


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement."""

    round_trip: float
    """Seconds for a TCP connection to be accepted."""
    bytes_per_second: float
    """0 where too little came to tell."""


class Dialler(Protocol):
    """Measures one link."""

    async def measure(self, peer: Peer) -> Measured:
        """Connects and reads.

        Raises:
            OSError: no connection.
            FleetError: the peer has no identity of this fleet, or this node has none.
            aiohttp.ClientError: it answers otherwise than a peer should.
            asyncio.TimeoutError: it does not answer.
        """


class TlsDialler:
    """Measures over the fleet's mutual TLS.

    Args:
        identity: tells the folder of this node's identity.
    """

    def __init__(self, identity: Callable[[], Path]) -> None:
        self._identity = identity

    async def measure(self, peer: Peer) -> Measured:
        """See `Dialler.measure`."""
        begin = time.perf_counter()
        connecting = asyncio.open_connection(peer.address, peer.port)
        _, writer = await asyncio.wait_for(connecting, CONNECT_SECONDS)
        round_trip = time.perf_counter() - begin
        writer.close()
        there = Endpoint(
            host=peer.address,
            port=peer.port,
            identity=str(self._identity()),
            name=node_host(peer.node),
        )
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS)
        async with (
            there.open(timeout=timeout) as http,
            http.get(PATH, params={"bytes": str(MOST_BYTES)}) as answer,
        ):
            answer.raise_for_status()
            return Measured(round_trip=round_trip, bytes_per_second=await _speed(answer.content))


class LinkTest:
    """The links of this node.

    Args:
        dialler: measures one.
        clock: seconds that only grow.
        pause: seconds before one that failed is tried again: a peer may not yet have heard that
            this node is in the fleet.
    """

    def __init__(
        self,
        dialler: Dialler,
        clock: Callable[[], float] = time.monotonic,
        pause: float = 0.5,
    ) -> None:
        self._dialler, self._clock, self._pause = dialler, clock, pause
        self._known: dict[tuple[str, str, int], tuple[float, LinkSpeed]] = {}

    async def measure(self, peers: Sequence[Peer], *, own: str) -> tuple[LinkSpeed, ...]:
        """Measures the links to these peers, several at a time; those known lately are not.

        Args:
            peers: all nodes of a generation; those without a peer port are passed over.
            own: this node's name.
        """
        turn = asyncio.Semaphore(AT_ONCE)
        others = [peer for peer in peers if peer.node != own and peer.port and peer.address]
        return tuple(await asyncio.gather(*(self._link(peer, turn) for peer in others)))

    async def _link(self, peer: Peer, turn: asyncio.Semaphore) -> LinkSpeed:
        key = (peer.node, peer.address, peer.port)
        at, known = self._known.get(key, (0.0, None))
        age = self._clock() - at
        if known is not None and age < GOOD_FOR:
            return msgspec.structs.replace(known, age=age)
        async with turn:
            found = await self._measured(peer)
            if not found.ok:
                await asyncio.sleep(self._pause)
                found = await self._measured(peer)
        self._known.pop(key, None)
        if found.ok:
            self._known[key] = self._clock(), found
        return found

    async def _measured(self, peer: Peer) -> LinkSpeed:
        where = f"{peer.address}:{peer.port}"
        if ":" in peer.address:
            where = f"[{peer.address}]:{peer.port}"
        try:
            seen = await asyncio.wait_for(self._dialler.measure(peer), ANSWER_SECONDS)
        except (OSError, FleetError, aiohttp.ClientError, asyncio.TimeoutError) as why:
            return LinkSpeed(node=peer.node, ok=False, error=_in_words(why), address=where)
        return LinkSpeed(
            node=peer.node,
            ok=True,
            address=where,
            round_trip=seen.round_trip,
            bytes_per_second=seen.bytes_per_second,
        )


async def _speed(content: aiohttp.StreamReader) -> float:
    """Bytes per second from the first chunk on, for as long as it may take."""
    if not await content.readany():
        return 0.0
    begin, size = time.perf_counter(), 0
    with suppress(asyncio.TimeoutError):
        while chunk := await asyncio.wait_for(
            content.read(_CHUNK), begin + MOST_SECONDS - time.perf_counter()
        ):
            size += len(chunk)
    return size / max(time.perf_counter() - begin, 1e-6)


def _in_words(why: Exception) -> str:
    """Why a peer can't be reached, for a person who is to mend it."""
    if isinstance(why, asyncio.TimeoutError):
        return "no answer: a firewall drops connections, or the address is not reachable from here"
    if isinstance(why, FleetError):
        return why.message
    if isinstance(why, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return f"it did not show a certificate of this fleet and node: {why}"
    number = getattr(why, "errno", None)
    if number == errno.ECONNREFUSED:
        return "connection refused: no worker listens there, or a firewall rejects it"
    if number in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return f"{os.strerror(number).lower()}: a firewall rejects it, or there is no route"
    return str(why) or type(why).__name__
