"""Fetches a blob that several nodes need at once: each takes a share from the coordinator and the
rest from the others, so that the coordinator sends it about once and not to every node.

Piece i belongs to node (i + shift) % N of the generation; the shift follows from the digest, so
that blobs of one piece are spread over the nodes, too. A node asks the owner of a piece for it,
who lets it wait until he has it. Whoever can't be reached, doesn't have it or is too slow is left
out from then on, and the next node in the ring owns his pieces: for everybody, since everybody
sees him fail. The last resort is the coordinator.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from llamaforge.bundle.pieces import PieceFile
from llamaforge.errors import LlamaForgeError
from llamaforge.wire.api import BLOBS
from llamaforge.wire.patience import Patience
from llamaforge.wire.ranges import NotYet, RangeSource

COORDINATOR_LANES = 2
"""Requests to the coordinator at a time: one is answered while the other is asked."""
PEER_LANES = 6
"""Peers that are asked at a time."""
SLOW_SECONDS = 30.0
"""A peer that needs longer for a piece is left out; longer ones are allowed where the coordinator
itself needs longer."""
SLOW_TIMES = 4.0
"""How many times longer than the coordinator."""
AGAIN_SECONDS = 0.2
"""Before a peer that hasn't got a piece yet is asked again."""

log = logging.getLogger("llamaforge.worker")


class Swarm:
    """Fetches the missing pieces of one blob.

    Args:
        pieces: what is here already, and where the rest goes.
        coordinator: makes a connection to it.
        peers: makes a connection to each other node that may have it.
        ring: the nodes of the generation in order; the same for all of them.
        me: this node.
        patience: how a coordinator that is away is waited for.
        arrived: told the bytes of every chunk, from any thread.
    """

    def __init__(
        self,
        pieces: PieceFile,
        coordinator: Callable[[], RangeSource],
        *,
        peers: Mapping[str, Callable[[], RangeSource]],
        ring: Sequence[str],
        me: str,
        patience: Patience,
        arrived: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._pieces, self._coordinator, self._peers = pieces, coordinator, dict(peers)
        known = [name for name in ring if name in self._peers or name == me]
        self._ring = known if me in known else [me]
        self._me, self._patience, self._arrived = me, patience, arrived
        self._url = f"{BLOBS}/{pieces.sha256}"
        self._shift = int(pieces.sha256[:8], 16)
        self._left_out: set[str] = set()
        self._todo: dict[str, deque[int]] = {name: deque() for name in self._ring}
        self._wanted = set(pieces.missing)
        self._asked = len(self._wanted)
        self._changed = asyncio.Event()
        self._asking = asyncio.Semaphore(PEER_LANES)
        self._slow = SLOW_SECONDS
        self._away = False
        self._sources: list[RangeSource] = []
        self._pool = ThreadPoolExecutor(COORDINATOR_LANES + PEER_LANES, "fetch")
        self.came_from: dict[str, int] = {}
        """Pieces by the peer that they came from."""
        for number in sorted(self._wanted):
            self._todo[self.owner(number)].append(number)

    def owner(self, number: int) -> str:
        """The node that fetches a piece from the coordinator, as far as is known here."""
        count = len(self._ring)
        for turn in range(count):
            name = self._ring[(number + self._shift + turn) % count]
            if name not in self._left_out:
                return name
        return self._me

    async def run(self) -> None:
        """Returns when all pieces stand.

        Raises:
            FleetError: the coordinator refuses.
            OSError: the disk does.
        """
        lanes = [self._lane(self._me, self._coordinator) for _ in range(COORDINATOR_LANES)]
        lanes += [self._lane(name, self._peers[name]) for name in self._ring if name != self._me]
        tasks = [asyncio.ensure_future(lane) for lane in lanes]
        try:
            await asyncio.gather(*tasks)
        except _DiskRefuses as refused:
            raise refused.why from None
        finally:
            for source in self._sources:
                source.abort()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)
            for source in self._sources:
                source.close()

    @property
    def sources(self) -> str:
        """Where the pieces came from, for the log."""
        peers = [f"{count} from {name}" for name, count in sorted(self.came_from.items())]
        own = self._asked - sum(self.came_from.values())
        return ", ".join([f"{own} of {self._pieces.count} pieces from the coordinator", *peers])

    # ── one source ────────────────────────────────────────────────────────────────────────────

    async def _lane(self, name: str, dial: Callable[[], RangeSource]) -> None:
        """Takes from one source until all pieces stand or the source is left out."""
        source = dial()
        self._sources.append(source)
        pull = self._pull_own if name == self._me else self._pull_from_peer
        while self._wanted and name not in self._left_out:
            if not self._todo[name]:
                await self._news()
                continue
            number = self._todo[name].popleft()
            await pull(source, name, number)

    async def _pull_own(self, source: RangeSource, _: str, number: int) -> None:
        begun = time.monotonic()
        while True:
            try:
                await self._transfer(source, number)
                break
            except (NotYet, OSError) as why:
                self._away = True
                await self._patience.wait(why)
                begun = time.monotonic()
        self._away = False
        self._patience.over()
        self._slow = max(self._slow, SLOW_TIMES * (time.monotonic() - begun))
        self._stands(number)

    async def _pull_from_peer(self, source: RangeSource, name: str, number: int) -> None:
        begun = time.monotonic()
        while True:
            try:
                async with self._asking:
                    await self._transfer(source, number, within=self._slow)
                break
            except NotYet:
                if self._away:  # everybody waits for the coordinator
                    begun = time.monotonic()
                if time.monotonic() - begun > self._slow:
                    self._leave_out(name, number, f"no piece for {self._slow:.0f} s")
                    return
                await asyncio.sleep(AGAIN_SECONDS)
            except (OSError, LlamaForgeError) as why:
                self._leave_out(name, number, str(why).splitlines()[0] or type(why).__name__)
                return
        self.came_from[name] = self.came_from.get(name, 0) + 1
        self._stands(number)

    async def _transfer(
        self, source: RangeSource, number: int, *, within: float | None = None
    ) -> None:
        start, length = self._pieces.span(number)

        def take(offset: int, data: memoryview) -> None:
            with _the_disks():
                self._pieces.write(offset, data)
            self._arrived(len(data))

        def work() -> None:
            source.read(self._url, start, length, take, within=within)
            with _the_disks():
                self._pieces.mark(number)

        await asyncio.get_running_loop().run_in_executor(self._pool, work)

    # ── who has what ──────────────────────────────────────────────────────────────────────────

    def _stands(self, number: int) -> None:
        self._wanted.discard(number)
        self._tell()

    def _leave_out(self, name: str, number: int, why: str) -> None:
        """Gives a peer's pieces to the next in the ring."""
        log.info("fetching %s… without %s: %s", self._pieces.sha256[:12], name, why)
        self._left_out.add(name)
        orphans = [number, *self._todo[name]]
        self._todo[name].clear()
        for orphan in orphans:
            self._todo[self.owner(orphan)].append(orphan)
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _news(self) -> None:
        await self._changed.wait()


class _DiskRefuses(Exception):
    """An error of this node's disk, which is not one of the network."""

    def __init__(self, why: OSError) -> None:
        super().__init__(str(why))
        self.why = why


@contextmanager
def _the_disks() -> Iterator[None]:
    try:
        yield
    except OSError as why:
        raise _DiskRefuses(why) from why
