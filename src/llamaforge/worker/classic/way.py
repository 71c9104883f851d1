"""The classic way beside the rest of a worker: on when MASTER_ADDR is set, and new on a reload."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from llamaforge.spec.ranks import Progress
from llamaforge.worker.busy import BusyLock
from llamaforge.worker.configuration import Configuration
from llamaforge.worker.ending import end

if TYPE_CHECKING:
    from llamaforge.worker.classic.visit import Visit

log = logging.getLogger("llamaforge.worker")


class ClassicWay:
    """Watches for torchrun with the settings of the moment.

    Args:
        configuration: how the worker runs.
        busy: shared with whatever else brings jobs to this worker.
    """

    def __init__(self, configuration: Configuration, busy: BusyLock) -> None:
        self._configuration, self._busy = configuration, busy
        self._changed = asyncio.Event()
        self._counted = 0
        self._waits = False
        """Whether a change waits for the end of a job."""
        self._visit: Visit | None = None
        busy.on_change(self._job_may_have_ended)

    @property
    def progress(self) -> Progress | None:
        """Where the running classic job is."""
        return self._visit.progress if self._visit else None

    @property
    def count(self) -> int:
        """Classic jobs since the start."""
        return self._counted + (self._visit.attended if self._visit else 0)

    def reconfigure(self) -> None:
        """The settings have changed: they hold for the next job."""
        self._changed.set()

    async def run(self) -> None:
        """Watches for ever. Cancelled, it lets the ranks of a running job save and leave."""
        while True:
            self._changed.clear()
            watching = asyncio.ensure_future(self._watch())
            try:
                await self._until_changed(watching)
            finally:
                await end(watching, gently=self._visit is not None and self._visit.running)

    async def _watch(self) -> None:
        settings = self._configuration.settings
        if settings.master_addr is None:
            await asyncio.Event().wait()
        from llamaforge.worker.classic.visit import Visit  # only workers set up for it pay
        from llamaforge.worker.classic.watch import watch

        self._counted = self.count
        self._visit = Visit(settings, log, self._configuration.exports)
        await watch(settings, self._busy, log, self._visit)

    async def _until_changed(self, watching: asyncio.Future[None]) -> None:
        """Waits for a change while no classic job runs; a watch that breaks is raised."""
        while True:
            changed = asyncio.ensure_future(self._changed.wait())
            either: set[asyncio.Future[Any]] = {changed, watching}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            if watching.done():
                watching.result()
            if self._visit is None or not self._visit.running:
                return
            self._changed.clear()
            self._waits = True

    def _job_may_have_ended(self) -> None:
        """A change that came in a job counts from its end on."""
        if self._waits and self._busy.holder is None:
            self._waits = False
            self._changed.set()
