"""A job's folder: what was asked for, what happened, and the files that rank 0's worker sends."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath

from llamaforge.bundle import checkpoints
from llamaforge.errors import IntegrityError, UserError
from llamaforge.monitor import folder as monitor_folder
from llamaforge.spec.job import Job
from llamaforge.spec.script import ScriptJob

GOES_ON = sys.maxsize
"""In place of a step: every line that stands in the folder is kept."""
LONGEST_PATH = 2048
"""Characters in the path of a file below a job's folder."""
DRAW_SECONDS = 60.0
"""How long a picture may take."""


class JobFolder(monitor_folder.JobFolder):
    """A job's folder on the coordinator: what the job says, and the files that arrive.

    Args:
        work: the job, or the script.
        path: the folder.
        checkpoint_dir: where its checkpoints go.
        resumed: the step that training continues after; None when it starts anew; `GOES_ON` where
            an earlier process of the coordinator kept it.

    Raises:
        UserError: a folder can't be made or written.
    """

    def __init__(
        self,
        work: Job | ScriptJob,
        path: Path,
        checkpoint_dir: Path,
        *,
        resumed: int | None,
    ) -> None:
        self.checkpoints = checkpoint_dir
        self._keep = work.spec.keep_last if isinstance(work, Job) else 1
        try:
            super().__init__(path, work, resumed=resumed)
            if isinstance(work, Job):
                self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as why:
            raise UserError(
                f"the job's folder {path} can't be written: {why}",
                hint="choose another one with --output-dir",
            ) from why

    async def draw_aside(self) -> str:
        """Draws the picture in a process of its own: matplotlib would stay in this one's memory.

        Returns:
            What went wrong; empty when the picture stands.
        """
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "llamaforge.monitor.plot",
            str(self.path),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, said = await asyncio.wait_for(child.communicate(), DRAW_SECONDS)
        except asyncio.TimeoutError:
            child.kill()
            await child.wait()
            return f"not drawn within {DRAW_SECONDS:.0f} s"
        lines = said.decode(errors="replace").strip().splitlines()
        return (
            "" if child.returncode == 0 else (lines or ["exit code " + str(child.returncode)])[-1]
        )

    def begin_checkpoint(self, name: str) -> None:
        """Makes room for a checkpoint that is about to arrive.

        Raises:
            IntegrityError: the name is not a checkpoint's.
            LlamaForgeError: the folder can't be made.
        """
        checkpoints.receive(self.checkpoints, name)

    async def checkpoint_file(
        self, name: str, relative: str, size: int, stream: AsyncIterator[bytes]
    ) -> None:
        """Takes one file of a checkpoint that has begun; `accept_checkpoint` verifies them all."""
        folder = checkpoints.arriving(self.checkpoints, name)
        if not folder.is_dir():
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
    except BaseException as why:
        partial.unlink(missing_ok=True)
        if isinstance(why, OSError) and why.errno == errno.ENOSPC:
            raise OSError(why.errno, why.strerror, str(target)) from why  # where, in words
        raise


def inside(root: Path, relative: str) -> Path:
    """The path of `relative` below `root`.

    Raises:
        IntegrityError: it is empty, absolute, climbs, or a link on the way leads out.
    """
    parts = PurePosixPath(relative).parts
    odd = not parts or relative.startswith("/") or ".." in parts or "\0" in relative
    if odd or len(relative) > LONGEST_PATH or any(_long(part) for part in parts):
        raise IntegrityError(f"path {relative[:80]!r} is not usable")
    target = root.joinpath(*parts)
    if not target.parent.resolve().is_relative_to(root.resolve()):
        raise IntegrityError(f"path {relative!r} leaves the folder")
    return target


def _long(part: str) -> bool:
    """Whether no file can be called so, with the letters that its temporary name has more."""
    return len(part.encode(errors="surrogateescape")) > 240
