"""Makes metrics.jsonl and events.jsonl of a job agree with its stream after the coordinator died.

The stream is durable line by line; the two files in the job's folder may be on another disk, ahead
of it or behind. They are what the stream says, after whatever stood there before the job.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from llamaforge.monitor import lines, plot
from llamaforge.monitor.folder import EVENTS, write_whole
from llamaforge.monitor.lines import Line
from llamaforge.wire.updates import GenerationStarted, JobUpdate, MetricLine, NoteLine, Numbered


def restore(folder: Path, stream: Path, resumed: int | None) -> None:
    """Writes both files anew where they differ from what the stream says.

    Args:
        folder: the job's folder.
        stream: the job's stream, cut to what is durable.
        resumed: the step that the job was submitted to go on after; None from the start.

    Raises:
        OSError: the folder can't be read or written.
        IntegrityError: a file holds something else than JSON lines.
    """
    told = _updates(stream)
    metrics, events = folder / plot.METRICS, folder / EVENTS
    _agree(metrics, _metrics(lines.read(metrics), told, resumed))
    _agree(events, _events(lines.read(events), told))


def event_of(started: GenerationStarted) -> dict[str, Any]:
    """A generation's beginning as an event: `kind`, `text` and its fields."""
    shape = ", ".join(f"{member.count} on {member.node}" for member in started.nodes)
    return {
        "kind": "generation",
        "text": f"generation {started.generation}: {started.world_size} ranks ({shape})",
        "generation": started.generation,
        "world_size": started.world_size,
        "nodes": {member.node: member.count for member in started.nodes},
        "after": started.after,
    }


def _updates(stream: Path) -> list[JobUpdate]:
    with stream.open("rb") as file:
        return [
            msgspec.json.decode(line, type=Numbered).update
            for line in file
            if b'"type":"log"' not in line[:80] and line.endswith(b"\n")
        ]


def _metrics(there: list[Line], told: list[JobUpdate], resumed: int | None) -> list[Line]:
    """The metric lines that stand, with those of an earlier job that this one goes on with."""
    before = -1 if resumed is None else resumed
    kept = [line for line in there if int(line.get("step", 0)) <= before]
    own: list[Line] = []
    for update in told:
        if isinstance(update, GenerationStarted):
            last = update.after or -1  # a generation from the first step drops that of step 0, too
            own = [line for line in own if int(line.get("step", 0)) <= last]
        elif isinstance(update, MetricLine):
            own.append(update.line)
    return kept + own


def _events(there: list[Line], told: list[JobUpdate]) -> list[Line]:
    """The events of the stream, after those that are older than it."""
    own: list[Line] = []
    for update in told:
        if isinstance(update, NoteLine):
            own.append(
                {"time": update.time, "kind": update.kind, "text": update.text, **update.fields}
            )
        elif isinstance(update, GenerationStarted):
            own.append({"time": update.time, **event_of(update)})
    begin = own[0]["time"] if own else 0.0
    return [line for line in there if float(line.get("time", 0)) < begin] + own


def _agree(path: Path, wanted: list[Line]) -> None:
    data = b"".join(msgspec.json.encode(line) + b"\n" for line in wanted)
    if (path.read_bytes() if path.exists() else b"") != data:
        write_whole(path, data)
