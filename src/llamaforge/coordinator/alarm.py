"""Wakes the coordinator's one task that leads jobs, when something has changed or time is up."""

from __future__ import annotations

import asyncio
import time


class Alarm:
    """Rung from anywhere in the event loop, waited for by one task."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Something has changed."""
        self._rung.set()

    async def wait(self, until: float | None) -> None:
        """Waits until it is rung, or until a moment of the monotonic clock."""
        try:
            seconds = None if until is None else max(0.0, until - time.monotonic())
            await asyncio.wait_for(self._rung.wait(), seconds)
        except asyncio.TimeoutError:
            return
        self._rung.clear()
