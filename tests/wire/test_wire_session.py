"""Sessions: every message exactly once and in order, wherever the connection breaks."""

from __future__ import annotations

import asyncio
import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from llamaforge.wire.messages import FromWorker, RankLog
from llamaforge.wire.session import ACK_EVERY, Session


class Cut:
    """A connection that delivers so many frames and then breaks."""

    def __init__(self, frames: int) -> None:
        self.left = frames
        self.delivered: list[bytes] = []

    async def send_bytes(self, data: bytes) -> None:
        if self.left == 0:
            raise ConnectionError("cut")
        self.left -= 1
        self.delivered.append(data)


def line(number: int) -> RankLog:
    return RankLog(job_id="j", rank=0, line=str(number))


def pair() -> tuple[Session[FromWorker, FromWorker], Session[FromWorker, FromWorker]]:
    return Session(FromWorker), Session(FromWorker)


async def connect(
    sender: Session[FromWorker, FromWorker], peer_received: int, frames: int
) -> list[bytes]:
    """One connection that breaks after `frames` frames. Returns what came through."""
    pipe = Cut(frames)
    writing = asyncio.ensure_future(sender.write(pipe, peer_received))
    for _ in range(5):
        await asyncio.sleep(0)
    writing.cancel()
    with contextlib.suppress(asyncio.CancelledError, ConnectionError):
        await writing
    return pipe.delivered


@settings(max_examples=60)
@given(
    plan=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60), st.integers(0, 60)), max_size=8)
)
def test_exactly_once_and_in_order(plan: list[tuple[int, int, int]]) -> None:
    """Each connection: so many new messages, so many frames sent, so many of them arrive."""

    async def scenario() -> tuple[list[str], int]:
        here, there = pair()
        sent = 0
        heard: list[str] = []
        for new, frames, arrive in [*plan, (0, 10_000, 10_000)]:
            for _ in range(new):
                here.send(line(sent))
                sent += 1
            for data in (await connect(here, there.received, frames))[:arrive]:
                message = there.take(data)
                if isinstance(message, RankLog):
                    heard.append(message.line)
        return heard, sent

    heard, sent = asyncio.run(scenario())
    assert heard == [str(number) for number in range(sent)]


async def test_acknowledged_messages_are_forgotten() -> None:
    here, there = pair()
    for number in range(ACK_EVERY + 3):
        here.send(line(number))
    for data in await connect(here, 0, 1000):
        there.take(data)
    for data in await connect(there, 0, 1000):  # nothing to say, so a bare acknowledgement
        assert here.take(data) is None
    assert here.backlog == 0


async def test_a_repeated_frame_is_dropped() -> None:
    here, there = pair()
    here.send(line(1))
    (data,) = await connect(here, 0, 1000)
    assert there.take(data) == line(1)
    assert there.take(data) is None


async def test_unwritten_counts_what_has_not_gone_out() -> None:
    here, there = pair()
    here.send(line(1))
    here.send(line(2))
    assert here.unwritten == 2
    await connect(here, 0, 1)
    assert here.unwritten == 1
    await connect(here, there.received, 10)
    assert here.unwritten == 0
