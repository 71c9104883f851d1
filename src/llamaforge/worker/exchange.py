"""What a node has from and for its fleet: the cache, who may ask for blobs, and each job's
transfers.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from llamaforge.bundle.eviction import Cache
from llamaforge.bundle.store import BlobStore
from llamaforge.spec import ranks
from llamaforge.spec.fleet import WorkerSettings
from llamaforge.wire.endpoint import Endpoint
from llamaforge.wire.messages import FromWorker, Inventory, RankSaid, Roster, StartRanks
from llamaforge.worker.enrol import identity_of
from llamaforge.worker.peer.secure import SecurePort
from llamaforge.worker.peer.shelf import Shelf

if TYPE_CHECKING:
    from llamaforge.worker.coordinator_http import CoordinatorHttp

NOTE_SECONDS = 5.0
"""Between two notes to the coordinator about one fetch."""
CHANGE = 0.01
"""The coordinator is told of a cache that has changed by more than this share of its limit."""

log = logging.getLogger("llamaforge.worker")


class Exchange:
    """One worker's.

    Args:
        settings: tells the settings of the moment.
    """

    def __init__(self, settings: Callable[[], WorkerSettings]) -> None:
        self._settings = settings
        self._folder = Path(settings().cache_dir)
        self._shelf = Shelf(BlobStore(self._folder / "blobs"))
        self._lock = threading.Lock()
        self._roster: frozenset[str] | None = None
        self._peers: frozenset[str] = frozenset()
        self._told_bytes = -1
        self._told_limit = -1
        self.fetching = ""
        """How far the fetch of a job's bundle is, for people; empty while there is none."""
        self.secure = SecurePort(lambda: identity_of(settings()), self._is_member, self._shelf)
        """The peer port's TLS side."""

    @property
    def cache(self) -> Cache:
        """The node's cache, with the limit of the moment."""
        return Cache(self._folder, self._settings().cache_bytes)

    def roster(self, message: Roster) -> None:
        """The fleet's nodes are these now: all others are refused from the next request on."""
        with self._lock:
            self._roster = frozenset(message.nodes)

    def transfers(
        self,
        endpoint: Callable[[], Endpoint],
        order: StartRanks,
        send: Callable[[FromWorker], None],
    ) -> CoordinatorHttp:
        """The transfers of one generation.

        Args:
            endpoint: where the coordinator is now.
            order: what is to run.
            send: tells the coordinator something.
        """
        # For the first job only: a worker that waits stays small.
        from llamaforge.worker.coordinator_http import CoordinatorHttp, Neighbours

        settings = self._settings()
        with self._lock:
            self._peers = frozenset(peer.node for peer in order.peers)
        home = identity_of(settings)
        mine = settings.name in self._peers
        told = _FetchLog(self, order, settings.name, send)
        return CoordinatorHttp(
            endpoint,
            generation=order.generation,
            neighbours=Neighbours(node=settings.name, peers=order.peers, identity=str(home))
            if mine
            else None,
            shelf=self._shelf,
            cache=self.cache,
            told=told,
        )

    async def inventory(self, *, always: bool = False) -> Inventory | None:
        """What the coordinator should know of the cache; None where nothing much has changed."""
        cache = self.cache
        try:
            size, limit, free = await asyncio.to_thread(_look, cache)
        except OSError as why:
            log.warning("the cache in %s can't be looked at: %s", self._folder, why)
            return None
        changed = abs(size - self._told_bytes) > CHANGE * limit or limit != self._told_limit
        if not (changed or always):
            return None
        self._told_bytes, self._told_limit = size, limit
        return Inventory(cache_bytes=size, cache_limit=limit, disk_free=free)

    def _is_member(self, name: str) -> bool:
        """Before the coordinator has said who is in the fleet, the nodes of our job are."""
        with self._lock:
            return name in (self._peers if self._roster is None else self._roster)


class _FetchLog:
    """Tells how far a fetch is: the status line each time, the coordinator now and then."""

    def __init__(
        self, exchange: Exchange, order: StartRanks, node: str, send: Callable[[FromWorker], None]
    ) -> None:
        self._exchange, self._order, self._node, self._send = exchange, order, node, send
        self._next_note = 0.0

    def __call__(self, have: int, total: int) -> None:
        done = have >= total
        said = f"fetching {have / 1e6:,.0f} of {total / 1e6:,.0f} MB"
        self._exchange.fetching = "" if done else said
        now = time.monotonic()
        if done or now < self._next_note:
            return
        self._next_note = now + NOTE_SECONDS
        order = self._order
        log.info("job %s: %s", order.job_id, said)
        note = ranks.Note(
            kind="fetching",
            text=f"{self._node} is {said}",
            fields={"node": self._node, "have": have, "total": total},
        )
        self._send(
            RankSaid(
                job_id=order.job_id,
                generation=order.generation,
                rank=order.first_rank,
                report=note,
            )
        )


def _look(cache: Cache) -> tuple[int, int, int]:
    return sum(item.size for item in cache.survey()), cache.limit, cache.free
