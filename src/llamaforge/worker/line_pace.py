"""How many lines a rank may write: a burst at full speed, then a steady stream; none is dropped.

A rank beyond its allowance is not read for a while, so it waits in its own `write`. The journal's
own limit, which drops lines, is switched off in the unit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

BURST = 300_000
"""Lines at once."""
PER_SECOND = 5_000.0
"""Lines, from then on."""


class LinePace:
    """A token bucket for one rank's lines.

    Args:
        burst: lines that it holds.
        per_second: lines that come back.
        clock: monotonic seconds.
        sleep: waits.
    """

    def __init__(
        self,
        burst: int = BURST,
        per_second: float = PER_SECOND,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._burst, self._per_second = float(burst), per_second
        self._clock, self._sleep = clock, sleep
        self._left, self._filled = float(burst), clock()

    async def take(self, lines: int) -> None:
        """Waits until that many lines are allowed; lets other work go on in any case."""
        now = self._clock()
        back = (now - self._filled) * self._per_second
        self._left = min(self._burst, self._left + back) - lines
        self._filled = now
        await self._sleep(max(0.0, -self._left / self._per_second))
