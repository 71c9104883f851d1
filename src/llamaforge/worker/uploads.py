"""Sends rank 0's checkpoints and artifacts to the coordinator while training goes on.

One upload at a time. A checkpoint that waits while a newer one comes is skipped: the newer one
is worth more, and the rank may already be deleting the older.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from llamaforge.errors import LlamaForgeError
from llamaforge.wire.messages import Uploaded
from llamaforge.worker.coordinator_http import CoordinatorHttp

log = logging.getLogger("llamaforge.worker")


class Uploads:
    """The uploads of one job on this node.

    Args:
        job_id: the job.
        generation: its generation that runs here.
        http: the way to the coordinator.
        send: tells the coordinator how each upload ended.
    """

    def __init__(
        self,
        job_id: str,
        generation: int,
        http: CoordinatorHttp,
        send: Callable[[Uploaded], None],
    ) -> None:
        self.failed = False
        """Whether something did not arrive."""
        self._job_id, self._generation = job_id, generation
        self._http, self._send = http, send
        self._checkpoint: Path | None = None
        self._artifacts: Path | None = None
        self._task: asyncio.Task[None] | None = None

    def checkpoint(self, folder: Path) -> None:
        """A checkpoint stands at `folder`."""
        self._checkpoint = folder
        self._go()

    def artifacts(self, folder: Path) -> None:
        """The artifacts stand in `folder`; nothing comes after them."""
        self._artifacts = folder
        self._go()

    @property
    def unfinished(self) -> bool:
        """Whether something was still on its way when the wait for it was given up."""
        return self._task is not None and (self._task.cancelled() or not self._task.done())

    async def finish(self) -> None:
        """Waits until everything has been sent or has failed."""
        if self._task is not None:
            await self._task

    def _go(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while self._checkpoint or self._artifacts:
            if folder := self._checkpoint:
                self._checkpoint = None
                error = await self._try(self._http.send_checkpoint, folder)
                if error and (self._checkpoint or not folder.is_dir()):
                    continue  # a newer one stands, or is about to be told: this one was deleted
                self._tell("checkpoint", folder.name, error)
            elif folder := self._artifacts:
                self._artifacts = None
                error = await self._try(self._http.send_artifacts, folder)
                self._tell("artifacts", "", error)

    async def _try(self, send: Callable[[str, Path], object], folder: Path) -> str:
        """Sends a folder. Returns why that failed, or nothing."""
        try:
            await send(self._job_id, folder)  # type: ignore[misc]
        except (LlamaForgeError, OSError) as why:
            return str(why)
        return ""

    def _tell(self, what: Literal["checkpoint", "artifacts"], name: str, error: str) -> None:
        if error:
            self.failed = True
            log.warning("%s %s was not sent: %s", what, name, error)
        self._send(
            Uploaded(
                job_id=self._job_id,
                generation=self._generation,
                what=what,
                name=name,
                error=error,
            )
        )
