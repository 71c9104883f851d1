"""A job's stream: each update once and in order, for early, late and returning readers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from llamaforge.coordinator.ledger import Ledger
from llamaforge.coordinator.stream import JobStream
from llamaforge.spec.states import JobState
from llamaforge.wire.updates import Ended, LogLine, MetricLine, Numbered


def metric(step: int) -> MetricLine:
    return MetricLine(line={"step": step})


END = Ended(state=JobState.DONE, reason="", output_dir="/x")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger.open(tmp_path / "ledger.db")
    yield ledger
    ledger.close()


def stream_of(ledger: Ledger) -> JobStream:
    return JobStream(ledger.path.parent / "s.jsonl", ledger, ledger.settled)


async def read(stream: JobStream, position: int, *kinds: str) -> list[int]:
    """The numbers that a reader sees, until the end."""
    return [
        msgspec.json.decode(line, type=Numbered).number
        async for line in stream.read(position, 30, kinds)
        if line.strip()
    ]


async def test_readers_at_any_time_see_everything(ledger: Ledger) -> None:
    stream = stream_of(ledger)
    early = asyncio.ensure_future(read(stream, 0))
    for step in range(3):
        stream.add(metric(step))
        await asyncio.sleep(0)
    late = asyncio.ensure_future(read(stream, 2))
    await asyncio.sleep(0)
    stream.add(END)
    stream.add(metric(9))  # too late: the end is the end
    assert await early == [0, 1, 2, 3]
    assert await late == [2, 3]
    assert await read(stream, 0) == [0, 1, 2, 3]
    assert await read(stream, 4) == []


async def test_only_what_is_asked_for(ledger: Ledger) -> None:
    stream = stream_of(ledger)
    for update in (metric(1), LogLine(node="a", rank=0, text="x"), metric(2), END):
        stream.add(update)
    assert await read(stream, 0, "log", "ended") == [1, 3]
    assert await read(stream, 1, "metric") == [2]


async def test_a_silent_stream_beats(ledger: Ledger) -> None:
    assert await anext(stream_of(ledger).read(0, beat=0.001)) == b"\n"


async def test_nothing_is_shown_before_it_is_durable(ledger: Ledger) -> None:
    """A coordinator that dies now would have told of something that never was."""
    allowed = asyncio.Event()

    async def barrier() -> None:
        await allowed.wait()
        await ledger.settled()

    stream = JobStream(ledger.path.parent / "s.jsonl", ledger, barrier)
    stream.add(metric(1))
    lines = stream.read(0, beat=0.001)
    assert await anext(lines) == b"\n"
    allowed.set()
    seen = [line async for line in _until(lines)]
    assert msgspec.json.decode(seen[0], type=Numbered).update == metric(1)


async def _until(lines):
    async for line in lines:
        if line.strip():
            yield line
            return


async def test_a_stream_goes_on_where_the_dead_coordinator_left_it(tmp_path: Path) -> None:
    first = Ledger.open(tmp_path / "ledger.db")
    stream = stream_of(first)
    stream.add(metric(1))
    await first.settled()
    stream.add(metric(2))  # nobody has been told of it
    first.close(flush=False)
    second = Ledger.open(tmp_path / "ledger.db")
    again = stream_of(second)
    assert (again.length, again.ended) == (1, False)
    again.add(END)
    assert await read(again, 0) == [0, 1]
    second.close()
