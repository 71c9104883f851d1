"""Ending a task for certain.

Before Python 3.12 `asyncio.wait_for` could lose a cancellation that came in the moment in which
what it waited for was done (https://github.com/python/cpython/issues/86296): the task went on, and
whoever waited for its end waited for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

AGAIN_SECONDS = 1.0


async def end(task: asyncio.Future[Any], *, gently: bool = False) -> None:
    """Cancels a task and waits for its end; whatever it raises is its own affair.

    Args:
        task: the task.
        gently: it cleans up for long (ranks save a checkpoint): cancel it only once.
    """
    task.cancel()
    while not task.done():
        await asyncio.wait({task}, timeout=AGAIN_SECONDS)
        if not task.done() and not gently:
            task.cancel()
    await asyncio.gather(task, return_exceptions=True)
