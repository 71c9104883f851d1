"""A job's folder as it grows: job.yaml, metrics, events, TensorBoard's files, proof and picture.

The coordinator keeps one for a fleet job, rank 0 for a job under plain torchrun; both write the
same files.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import yaml

from llamaforge.errors import UserError
from llamaforge.monitor import plot
from llamaforge.monitor.events import Events
from llamaforge.monitor.metrics import Metrics
from llamaforge.monitor.tensorboard import TensorBoard
from llamaforge.spec.job import Job
from llamaforge.spec.script import ScriptJob

JOB = "job.yaml"
EVENTS = "events.jsonl"
PROOF = "proof.json"
TENSORBOARD = "tensorboard"


class JobFolder:
    """Writes what a job says of itself.

    Args:
        path: the folder; made when missing.
        job: the job, or the script.
        resumed: the step that training continues after; None when it starts anew.

    Raises:
        OSError: the folder can't be written.
        IntegrityError: it holds metrics or events that can't be read.
        UserError: another job writes into it or has; or the job asks for TensorBoard, which is
            not installed.
    """

    def __init__(self, path: Path, job: Job | ScriptJob, *, resumed: int | None) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._claim = _claim(path, job)
        try:
            self._open(path, job, resumed)
        except BaseException:
            os.close(self._claim)
            raise

    def _open(self, path: Path, job: Job | ScriptJob, resumed: int | None) -> None:
        text = yaml.safe_dump(msgspec.to_builtins(job), sort_keys=False, allow_unicode=True)
        write_whole(path / JOB, text.encode())
        self._metrics = Metrics(path / plot.METRICS, after=resumed)
        self._events = Events(path / EVENTS)
        drawn = isinstance(job, Job) and job.spec.tensorboard
        self._board = TensorBoard(path / TENSORBOARD, after=resumed) if drawn else None

    def metric(self, line: dict[str, Any]) -> None:
        """Adds a line to metrics.jsonl."""
        self._metrics.append(line)
        if self._board is not None:
            self._board.append(line)

    def rewind(self, after: int | None) -> None:
        """The job goes on after this step: what was told of later ones is dropped.

        Args:
            after: a committed step; None when the job starts at its first step again.
        """
        last = -1 if after is None else after
        self._metrics.rewind(last)
        if self._board is not None:
            self._board.rewind(last)

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
        """Makes metrics and events durable; another part of the job may begin."""
        try:
            self._metrics.close()
            self._events.close()
            if self._board is not None:
                self._board.close()
        finally:
            if self._claim >= 0:
                os.close(self._claim)
                self._claim = -1


def _claim(folder: Path, job: Job | ScriptJob) -> int:
    """Makes sure that no other job writes, or has written, into the folder.

    Two commands may have found it empty at the same moment.

    Returns:
        The descriptor whose lock the kernel frees when it is closed, however that happens.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        there = _id_of(folder / JOB)
    except BlockingIOError:
        there = _id_of(folder / JOB) or "another job"
        os.close(handle)
        raise _occupied(folder, f"{there} writes into it now") from None
    except OSError:  # a file system without locks
        return handle
    if there not in (None, job.id):
        os.close(handle)
        raise _occupied(folder, f"it holds the job {there}")
    return handle


def _occupied(folder: Path, why: str) -> UserError:
    return UserError(
        f"{folder} can't be the folder of this job: {why}",
        hint="choose another folder with --output-dir or --name",
    )


def _id_of(path: Path) -> str | None:
    """The id in a job.yaml; None when there is none that can be read."""
    try:
        return msgspec.yaml.decode(path.read_bytes(), type=_Named).id
    except (OSError, msgspec.MsgspecError):
        return None


class _Named(msgspec.Struct, frozen=True, kw_only=True):
    """As much of a job.yaml as is needed to tell two jobs apart."""

    id: str


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
