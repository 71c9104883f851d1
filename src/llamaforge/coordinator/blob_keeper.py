"""Keeps the coordinator's blobs within their limit, and those of jobs that have not ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from llamaforge.bundle.eviction import Cache, text
from llamaforge.bundle.lease import Lease

LOOK_SECONDS = 10.0
"""Between two looks at which jobs there are."""
SWEEP_SECONDS = 600.0
UPLOAD_SECONDS = 3600.0
"""How long a blob waits for the submission that it was sent for."""
LASTS_SECONDS = 7 * 86400.0
"""How long jobs' blobs are kept when the coordinator is not there."""

log = logging.getLogger("llamaforge.coordinator")


class BlobKeeper:
    """The keeper of one coordinator's cache.

    Args:
        folder: the cache's.
        limit: tells the most bytes of the moment; None: a fair share of the disk.
        in_use: tells the digests of all jobs that have not ended.
        name: this fleet's, so that a coordinator finds its own lease again.
    """

    def __init__(
        self,
        folder: Path,
        limit: Callable[[], int | None],
        in_use: Callable[[], Iterable[str]],
        *,
        name: str,
    ) -> None:
        self._folder, self._limit, self._in_use, self._name = folder, limit, in_use, name

    async def make_room(self, needed: int) -> None:
        """Makes room for a bundle that is about to be sent.

        Raises:
            NoSpace: there is none.
            OSError: the cache can't be read or changed.
        """
        done = await asyncio.to_thread(self._cache().make_room, needed, what="the bundle")
        if done.gone:
            size = sum(item.size for item in done.gone)
            log.info("%s that had not been used for long went from the cache", text(size))

    async def run(self) -> None:
        """Holds the lease, and sweeps now and then, until it is cancelled."""
        digests: frozenset[str] = frozenset()
        lease: Lease | None = None
        looked = SWEEP_SECONDS
        try:
            while True:
                now = frozenset(self._in_use())
                try:
                    if lease is None:
                        lease = await asyncio.to_thread(self._take, now)
                    elif now != digests:
                        await asyncio.to_thread(lease.change, now)
                    digests = now
                    if looked >= SWEEP_SECONDS:
                        await asyncio.to_thread(self._cache().sweep)
                        looked = 0.0
                except OSError as why:
                    log.warning("the cache in %s can't be kept in order: %s", self._folder, why)
                await asyncio.sleep(LOOK_SECONDS)
                looked += LOOK_SECONDS
        finally:
            if lease is not None and not self._in_use():
                lease.free()  # else it outlasts us: the jobs are there the next time

    def _take(self, digests: Iterable[str]) -> Lease:
        return Lease(self._folder, digests, name=f"coordinator-{self._name}", lasts=LASTS_SECONDS)

    def _cache(self) -> Cache:
        digests = frozenset(self._in_use())  # now, and in this thread
        return Cache(self._folder, self._limit(), in_use=lambda: digests, recent=UPLOAD_SECONDS)
