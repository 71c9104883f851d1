"""A job's stream: each update once and in order, for early, late and returning readers."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from llamaforge.coordinator.stream import JobStream
from llamaforge.spec.states import JobState
from llamaforge.wire.updates import Ended, MetricLine, Numbered


def metric(step: int) -> MetricLine:
    return MetricLine(line={"step": step})


END = Ended(state=JobState.DONE, reason="", output_dir="/x")


async def read(stream: JobStream, position: int) -> list[int]:
    """The numbers that a reader sees, until the end."""
    return [
        msgspec.json.decode(line, type=Numbered).number
        async for line in stream.read(position, beat=30)
        if line.strip()
    ]


async def test_readers_at_any_time_see_everything(tmp_path: Path) -> None:
    stream = JobStream(tmp_path / "s.jsonl")
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


async def test_a_silent_stream_beats(tmp_path: Path) -> None:
    stream = JobStream(tmp_path / "s.jsonl")
    assert await anext(stream.read(0, beat=0.001)) == b"\n"


async def test_a_full_disk_costs_updates_but_not_the_end(tmp_path: Path) -> None:
    stream = JobStream(tmp_path / "s.jsonl")
    stream.add(metric(1))
    stream._file = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115 - closed at the end
    with pytest.raises(OSError, match="No space left"):
        stream.add(metric(2))
    stream.add(END)
    lines = [line async for line in stream.read(0, beat=30)]
    assert [msgspec.json.decode(line, type=Numbered).number for line in lines] == [0, 1]
    assert msgspec.json.decode(lines[-1], type=Numbered).update == END


async def test_half_a_line_is_never_read(tmp_path: Path) -> None:
    stream = JobStream(tmp_path / "s.jsonl")
    stream.add(metric(1))
    os.truncate(tmp_path / "s.jsonl", stream._size - 3)
    lines = stream.read(0, beat=0.001)
    assert await anext(lines) == b"\n"
