"""Waits for a coordinator that is away: it may be starting again, and nothing is lost meanwhile."""

from __future__ import annotations

import asyncio
import logging
import random

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds before the second try: doubled from the first to the longest, less a random part."""
SAID_AFTER = 3
"""Tries after which the log is told."""

log = logging.getLogger("llamaforge.worker")


class Patience:
    """The pauses between tries, and one line in the log when it takes longer, and when it is over.

    Args:
        what: what waits, for the log: "fetching data/train.jsonl".
    """

    def __init__(self, what: str) -> None:
        self.tries = 0
        """Since it went well last."""
        self._what = what

    async def wait(self, why: BaseException) -> None:
        """Waits before the next try."""
        self.tries += 1
        if self.tries == SAID_AFTER:
            said = str(why).strip() or type(why).__name__
            log.warning("%s waits for the coordinator: %s", self._what, said.splitlines()[0])
        pause = min(FIRST_PAUSE * 2 ** (self.tries - 1), LONGEST_PAUSE)
        await asyncio.sleep(pause * random.uniform(0.5, 1))

    def over(self) -> None:
        """It went well."""
        if self.tries >= SAID_AFTER:
            log.info("%s goes on", self._what)
        self.tries = 0
