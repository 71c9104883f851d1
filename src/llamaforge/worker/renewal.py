"""Renews the worker's certificate after a third of its life, quietly, with a new key each time."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from pathlib import Path

from llamaforge.errors import LlamaForgeError
from llamaforge.identity import request
from llamaforge.identity.validity import validity_of
from llamaforge.wire import join
from llamaforge.wire.endpoint import Endpoint
from llamaforge.worker.orphans import own_child

LOOK_SECONDS = 6 * 3600.0
"""How often it looks at the calendar, since clocks jump and machines sleep."""
AGAIN_SECONDS = 1800.0
"""Pause after a renewal that failed, more or less: there are months left."""

log = logging.getLogger("llamaforge.worker")


async def keep_fresh(endpoint: Endpoint) -> None:
    """Renews whenever it is due, for as long as the task lives.

    The connection that stands goes on with the old certificate; the next one has the new one.
    """
    while True:
        pause = LOOK_SECONDS
        try:
            if is_due(Path(endpoint.identity), time.time()):
                await renew(endpoint)
                log.info("renewed this node's certificate")
        except (LlamaForgeError, OSError) as why:
            log.debug("the certificate can't be renewed now: %s", why)
            pause = AGAIN_SECONDS
        await asyncio.sleep(pause * random.uniform(0.8, 1.2))


def is_due(home: Path, now: float) -> bool:
    """Whether an identity should be renewed.

    Raises:
        FleetError: there is none.
    """
    return now >= validity_of(home).renewal()


async def renew(endpoint: Endpoint) -> None:
    """Renews now.

    Raises:
        FleetError: the coordinator refuses, or can't be reached.
        OSError: the disk refuses; the old certificate is still there.
    """
    with own_child():
        key = await request.make_elsewhere()
    join.save(Path(endpoint.identity), key, await join.renew(endpoint, key))
