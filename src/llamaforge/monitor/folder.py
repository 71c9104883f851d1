"""A job's folder as it grows: job.yaml, metrics, events, TensorBoard's files, proof and picture.

The coordinator keeps one for a fleet job, rank 0 for a job under plain torchrun; both write the
same files.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import yaml

from llamaforge.monitor import plot
from llamaforge.monitor.events import Events
from llamaforge.monitor.metrics import Metrics
from llamaforge.monitor.tensorboard import TensorBoard
from llamaforge.spec.job import Job

JOB = "job.yaml"
EVENTS = "events.jsonl"
PROOF = "proof.json"
TENSORBOARD = "tensorboard"


class JobFolder:
    """Writes what a job says of itself.

    Args:
        path: the folder; made when missing.
        job: the job.
        resumed: the step that training continues after; None when it starts anew.

    Raises:
        OSError: the folder can't be written.
        IntegrityError: it holds metrics or events that can't be read.
        UserError: the job asks for TensorBoard, which is not installed.
    """

    def __init__(self, path: Path, job: Job, *, resumed: int | None) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(msgspec.to_builtins(job), sort_keys=False, allow_unicode=True)
        write_whole(path / JOB, text.encode())
        self._metrics = Metrics(path / plot.METRICS, after=resumed)
        self._events = Events(path / EVENTS)
        self._board = (
            TensorBoard(path / TENSORBOARD, after=resumed) if job.spec.tensorboard else None
        )

    def metric(self, line: dict[str, Any]) -> None:
        """Adds a line to metrics.jsonl."""
        self._metrics.append(line)
        if self._board is not None:
            self._board.append(line)

    def event(self, kind: str, text: str, **fields: Any) -> None:
        """Adds a line to events.jsonl."""
        self._events.add(kind, text, **fields)

    def proof(self, proof: dict[str, Any]) -> None:
        """Writes proof.json."""
        write_whole(self.path / PROOF, msgspec.json.format(msgspec.json.encode(proof)) + b"\n")

    def draw(self) -> None:
        """Draws loss.svg; takes a second or two."""
        plot.draw_folder(self.path)

    def close(self) -> None:
        """Makes metrics and events durable."""
        self._metrics.close()
        self._events.close()
        if self._board is not None:
            self._board.close()


def write_whole(path: Path, data: bytes) -> None:
    """Writes a small file so that readers see the old one or the whole new one, also after a
    power cut."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o644)
    Path(name).rename(path)
