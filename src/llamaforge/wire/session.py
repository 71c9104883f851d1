"""Numbered frames over websockets that come and go: nothing lost, nothing twice, in order.

A session is a worker process and a fleet's coordinator. When its websocket breaks, both keep the
frames that the other has not acknowledged; the greeting on the next websocket says how far each
side had received, and the rest is sent again.

A coordinator that was started again takes the session up where its ledger has it: it knows what it
had received, since it acknowledges nothing that is not durable, and numbers its own frames from 1
again (`restart` on the worker's side); whatever it had ordered it orders once more.

Frames are acknowledged by the frames that go the other way, and by a bare one (number 0) after
every `ACK_EVERY` frames received.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Generic, Protocol, TypeVar

import msgspec
from msgspec import Meta

ACK_EVERY = 32
"""Received frames after which an acknowledgement is sent on its own."""

Said = TypeVar("Said")
Heard = TypeVar("Heard")


class Frame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What travels: a number, how far the sender has received, and a message."""

    number: Annotated[int, Meta(ge=0, le=2**53)] = 0
    """Counted from 1; 0 for a bare acknowledgement."""
    received: Annotated[int, Meta(ge=0, le=2**53)] = 0
    body: msgspec.Raw = msgspec.Raw(b"null")


class Pipe(Protocol):
    """The sending half of a websocket."""

    async def send_bytes(self, data: bytes) -> None:
        """Sends one frame. Raises ConnectionError when the connection is gone."""


class Session(Generic[Said, Heard]):
    """One side of a session. `Said` is what this side sends, `Heard` what it receives.

    `send` and `take` never wait, so they may be called from anywhere in the event loop; the
    frames go out in the one task that runs `write`.

    Args:
        heard: the type (usually a union of tagged structs) of the messages received.
        received: number of the last frame that arrived before this process began.
        barrier: returns when all that this side knows now is durable; nothing is written, and
            nothing acknowledged, before it has.
    """

    def __init__(
        self,
        heard: Any,
        *,
        received: int = 0,
        barrier: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.received = received
        """Number of the last frame that arrived."""
        self._barrier = barrier
        self._sent = 0
        self._written = 0
        self._kept: deque[Frame] = deque()
        """Frames that the other side has not acknowledged."""
        self._acknowledged = received
        """Last frame that this side has acknowledged."""
        self._wake = asyncio.Event()
        self._frames = msgspec.json.Decoder(Frame)
        self._bodies: msgspec.json.Decoder[Heard] = msgspec.json.Decoder(heard)

    @property
    def backlog(self) -> int:
        """Messages that the other side has not acknowledged."""
        return len(self._kept)

    @property
    def unwritten(self) -> int:
        """Messages that have not gone out over the present websocket."""
        return self._sent - self._written

    def send(self, message: Said) -> None:
        """Queues a message; it goes out now, or when there is a connection again."""
        self._sent += 1
        body = msgspec.Raw(msgspec.json.encode(message))
        self._kept.append(Frame(number=self._sent, body=body))
        self._wake.set()

    def take(self, data: bytes | str) -> Heard | None:
        """Reads a frame.

        Returns:
            Its message, or None for an acknowledgement or a frame that has been here before.

        Raises:
            msgspec.MsgspecError: the frame can't be understood.
        """
        try:
            return self._take(data)
        except (UnicodeDecodeError, RecursionError) as why:
            raise msgspec.DecodeError(f"not a message: {why}") from why

    def _take(self, data: bytes | str) -> Heard | None:
        frame = self._frames.decode(data)
        self._forget(frame.received)
        if frame.number <= self.received:
            return None
        self.received = frame.number
        if self.received - self._acknowledged >= ACK_EVERY:
            self._wake.set()
        return self._bodies.decode(frame.body)

    async def write(self, pipe: Pipe, peer_received: int) -> None:
        """Sends everything that the peer has not received, then what comes; until cancelled.

        Args:
            pipe: the new websocket.
            peer_received: what the peer said in its greeting.

        Raises:
            ConnectionError: the websocket is gone.
        """
        self._forget(peer_received)
        self._written = peer_received
        while True:
            self._wake.clear()
            received = self.received
            frames = [kept for kept in self._kept if kept.number > self._written]
            owes = received - self._acknowledged >= ACK_EVERY
            if self._barrier is not None and (frames or owes):
                await self._barrier()
            for frame in frames:
                await self._put(pipe, frame, received)
                self._written = frame.number
            if received - self._acknowledged >= ACK_EVERY:
                await self._put(pipe, Frame(), received)
            await self._wake.wait()

    def restart(self) -> None:
        """The other side is a new process, which counts its frames from 1 again."""
        self.received = self._acknowledged = 0

    def _forget(self, received: int) -> None:
        while self._kept and self._kept[0].number <= received:
            self._kept.popleft()

    async def _put(self, pipe: Pipe, frame: Frame, received: int) -> None:
        self._acknowledged = received
        await pipe.send_bytes(
            msgspec.json.encode(msgspec.structs.replace(frame, received=received))
        )
