"""The classic way on a worker: waits for a torchrun on MASTER_ADDR, joins it, and waits again.

Nothing on the coordinator knows about workers: a person runs plain torchrun there. So the worker
looks at the port once a second, for ever, says in one line whenever what it sees changes, and
takes part in every job that it finds waiting, once.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable

from llamaforge.spec.fleet import WorkerSettings
from llamaforge.worker.busy import BusyLock
from llamaforge.worker.classic.store_probe import Kind
from llamaforge.worker.classic.visit import Look, Visit, folder_of, look_with

INTERVAL = 1.0
"""Seconds between two looks at the port."""
POLITE_INTERVAL = 5.0
"""The same where something else listens: each look may be a line in the log of that."""


async def watch(
    settings: WorkerSettings,
    busy: BusyLock,
    log: logging.Logger,
    visit: Visit | None = None,
) -> None:
    """Takes part in classic jobs until it is cancelled; then the ranks save and leave.

    Args:
        settings: `master_addr` is set.
        busy: shared with whatever else brings jobs to this worker.
        log: for people.
        visit: takes part in a job; by default one with these settings.
    """
    if settings.node_rank == 0:
        log.info("classic: NODE_RANK is 0, which is torchrun's own node; nothing to wait for")
        await asyncio.Event().wait()
    shutil.rmtree(folder_of(settings), ignore_errors=True)  # of a worker that was killed
    watcher = Watcher(look_with(settings), visit or Visit(settings, log), busy, log)
    while True:
        seen = await watcher.step()
        await asyncio.sleep(POLITE_INTERVAL if seen is Kind.FOREIGN else INTERVAL)


class Watcher:
    """Looks, tells changes, and joins what waits.

    Args:
        look: one look at the port.
        join: takes part in the job that waits there, from start to end.
        busy: who has this worker.
        log: for people.
    """

    def __init__(
        self, look: Look, join: Callable[[], Awaitable[None]], busy: BusyLock, log: logging.Logger
    ) -> None:
        self._look = look
        self._join = join
        self._busy = busy
        self._log = log
        self._told = ""
        self._last = ""

    async def step(self) -> Kind:
        """One look, and one job if one waits. Returns what was seen."""
        seen = await self._look()
        if seen.kind is Kind.WAITING:
            await self._take(seen.text)
        else:
            self._tell(f"{seen.text}; waiting", at_once=False)
        return seen.kind

    async def _take(self, text: str) -> None:
        with self._busy.holding(text) as mine:
            if not mine:
                self._tell(f"{text}; first comes: {self._busy.holder}", at_once=True)
                return
            self._tell(f"{text}; joining", at_once=True)
            await self._join()
        self._told = ""

    def _tell(self, text: str, *, at_once: bool) -> None:
        """Logs what is new. What may be a passing moment must be seen twice."""
        if text != self._told and (at_once or text == self._last):
            self._log.info("classic: %s", text)
            self._told = text
        self._last = text
