"""A job's folder: what was asked for, what happened, and the files that rank 0's worker sends."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import yaml

from llamaforge.bundle import checkpoints
from llamaforge.errors import IntegrityError, UserError
from llamaforge.monitor.events import Events
from llamaforge.monitor.metrics import Metrics
from llamaforge.spec.job import Job
from llamaforge.wire.api import Submission

JOB_FILE = "job.yaml"
PROOF_FILE = "proof.json"


class JobFolder:
    """Writes one job's folder and its checkpoints.

    Args:
        submission: the job and where its files go.

    Raises:
        UserError: a folder can't be made or written.
    """

    def __init__(self, submission: Submission) -> None:
        self.path = Path(submission.output_dir)
        self.checkpoints = Path(submission.checkpoint_dir)
        self._incoming = ("", Path())
        """The checkpoint that arrives now and its partial folder."""
        self._keep = submission.job.spec.keep_last
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            write_whole(self.path / JOB_FILE, _as_yaml(submission.job))
            self._metrics = Metrics(self.path / "metrics.jsonl", after=submission.resume_step)
            self._events = Events(self.path / "events.jsonl")
        except OSError as why:
            raise UserError(
                f"the job's folder {self.path} can't be written: {why}",
                hint="choose another one with --output-dir",
            ) from why

    def metric(self, line: dict[str, Any]) -> None:
        """Adds a line to metrics.jsonl."""
        self._metrics.append(line)

    def event(self, kind: str, text: str, **fields: Any) -> None:
        """Adds a line to events.jsonl."""
        self._events.add(kind, text, **fields)

    def proof(self, proof: dict[str, Any]) -> None:
        """Writes proof.json, unless the artifacts brought one."""
        if not (self.path / PROOF_FILE).exists():
            write_whole(self.path / PROOF_FILE, msgspec.json.format(msgspec.json.encode(proof)))

    def begin_checkpoint(self, name: str) -> None:
        """Makes room for a checkpoint that is about to arrive.

        Raises:
            IntegrityError: the name is not a checkpoint's.
            LlamaForgeError: the folder can't be made.
        """
        self._incoming = (name, checkpoints.receive(self.checkpoints, name))

    async def checkpoint_file(
        self, name: str, relative: str, size: int, stream: AsyncIterator[bytes]
    ) -> None:
        """Takes one file of a checkpoint that has begun; `accept_checkpoint` verifies them all."""
        expected, folder = self._incoming
        if name != expected:
            raise IntegrityError(f"checkpoint {name!r} was not announced")
        await receive_file(folder, relative, size, stream)

    async def accept_checkpoint(self, name: str) -> Path:
        """Verifies a checkpoint that has arrived and gives it its name.

        Raises:
            IntegrityError: its files are not what its manifest promises.
            LlamaForgeError: the disk is full or refuses.
        """
        return await asyncio.to_thread(checkpoints.accept, self.checkpoints, name, self._keep)

    async def artifact(self, relative: str, size: int, stream: AsyncIterator[bytes]) -> None:
        """Takes one artifact: readers see the old file or the whole new one."""
        await receive_file(self.path, relative, size, stream)

    def close(self) -> None:
        """Makes metrics and events durable."""
        self._metrics.close()
        self._events.close()


async def receive_file(root: Path, relative: str, size: int, stream: AsyncIterator[bytes]) -> None:
    """Writes a stream to `root/relative` through a temporary file beside it.

    Raises:
        IntegrityError: the path leaves the folder, or the length is not what was promised.
        OSError: the disk is full or refuses.
    """
    target = inside(root, relative)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    partial = Path(name)
    written = 0
    try:
        with os.fdopen(handle, "wb") as file:
            async for data in stream:
                written += len(data)
                if written > size:
                    break
                await asyncio.to_thread(file.write, data)
            if written != size:
                raise IntegrityError(f"{relative} arrived with {written} bytes in place of {size}")
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
        partial.chmod(0o644)
        partial.rename(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def inside(root: Path, relative: str) -> Path:
    """The path of `relative` below `root`.

    Raises:
        IntegrityError: it is empty, absolute, climbs, or a link on the way leads out.
    """
    parts = PurePosixPath(relative).parts
    if not parts or relative.startswith("/") or ".." in parts or "\0" in relative:
        raise IntegrityError(f"path {relative!r} is not usable")
    target = root.joinpath(*parts)
    if not target.parent.resolve().is_relative_to(root.resolve()):
        raise IntegrityError(f"path {relative!r} leaves the folder")
    return target


def write_whole(path: Path, data: bytes) -> None:
    """Writes a small file so that readers see the old one or the whole new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), 0o644)
    Path(name).rename(path)


def _as_yaml(job: Job) -> bytes:
    text = yaml.safe_dump(msgspec.to_builtins(job), sort_keys=False, allow_unicode=True)
    return str(text).encode()
