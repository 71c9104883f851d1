"""What a client does while its coordinator is away: dials again, says so once, gives up late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import aiohttp

from llamaforge.errors import LlamaForgeError

AWAY = (aiohttp.ClientError, ConnectionError, asyncio.TimeoutError)
"""What a request raises whose coordinator can't be reached."""

REDIAL_SECONDS = 0.5


class Away:
    """Counts how long a coordinator has been away.

    Args:
        seconds: how long it may be.
        tell: is told in one line that it is away, and that it is back.
        gone: makes the error that ends the patience out of the last failure.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        tell: Callable[[str], None],
        gone: Callable[[BaseException], LlamaForgeError],
    ) -> None:
        self._seconds, self._tell, self._gone = seconds, tell, gone
        self._since: float | None = None
        self._told = False

    async def wait(self, why: BaseException) -> None:
        """Waits until it is time to dial again.

        Raises:
            LlamaForgeError: it has been away for too long, or will not be back.
        """
        now = time.monotonic()
        if isinstance(why, aiohttp.ClientSSLError):
            raise self._gone(why) from why
        if self._since is None:
            self._since = now
        elif not self._told and now - self._since < self._seconds():
            # The second failure: a restart that is over by now is not worth a word.
            self._told = True
            self._tell("the coordinator is away; waiting")
        if now - self._since >= self._seconds():
            raise self._gone(why) from why
        await self.pause()

    def reached(self) -> None:
        """The coordinator has answered."""
        self._since = None
        if self._told:
            self._told = False
            self._tell("the coordinator is back")

    async def pause(self) -> None:
        """The time between two dials."""
        await asyncio.sleep(REDIAL_SECONDS)
