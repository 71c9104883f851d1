"""The worker's file transfers: blobs from the coordinator and its peers, checkpoints and artifacts
to the coordinator.

A connection that breaks is no failure: the coordinator may be starting again, and is waited for as
long as the job is not given up. A refusal is final.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from urllib.parse import quote

import aiohttp
import msgspec

from llamaforge.bundle.eviction import Cache
from llamaforge.bundle.lease import Lease
from llamaforge.bundle.manifest import Entry, Manifest
from llamaforge.bundle.pieces import SMALL, PieceFile, room_taken
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import FleetError, IntegrityError, NoSpace
from llamaforge.identity.names import node_host
from llamaforge.wire import api
from llamaforge.wire.endpoint import Endpoint
from llamaforge.wire.messages import Peer
from llamaforge.wire.patience import Patience
from llamaforge.wire.ranges import LATER, NotYet, RangeSource
from llamaforge.wire.refused import check
from llamaforge.wire.transfer import CHUNK, chunks, into_store
from llamaforge.worker.peer.shelf import Shelf
from llamaforge.worker.swarm import Swarm

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=600)
SMALL_LANES = 4
"""Small blobs that are fetched at a time."""
PEER_SILENT_SECONDS = 15.0
"""Without a byte for so long, a peer counts as gone; it answers sooner that it must wait itself."""
TOLD_SECONDS = 1.0
"""Between two words about how far a fetch is."""
LOOK_SECONDS = 0.2
"""Between two looks at what another process fetches into the same cache."""

log = logging.getLogger("llamaforge.worker")


class Neighbours(msgspec.Struct, frozen=True, kw_only=True):
    """The nodes that fetch the same bundle."""

    node: str
    """This one."""
    peers: tuple[Peer, ...]
    """All of them, this one too, in the same order everywhere."""
    identity: str
    """Folder of this node's identity, which is shown to them."""


class CoordinatorHttp:
    """Transfers with one coordinator; an async context manager.

    Args:
        endpoint: where it is now; it may come back at another port.
        generation: whose files are sent; those of one that is over are refused.
        neighbours: who shares big blobs with this node; None: nobody.
        shelf: where the neighbours find what is being fetched here.
        cache: where room is made for what is fetched, and what is used is kept until the end of
            this context; None: nothing is evicted.
        told: hears how far a fetch is, bytes that are here and all bytes, at most once a second.
    """

    def __init__(
        self,
        endpoint: Callable[[], Endpoint],
        *,
        generation: int | None = None,
        neighbours: Neighbours | None = None,
        shelf: Shelf | None = None,
        cache: Cache | None = None,
        told: Callable[[int, int], None] = lambda _have, _all: None,
    ) -> None:
        self._endpoint, self._generation = endpoint, generation
        self._dialled: Endpoint | None = None
        self._old: list[aiohttp.ClientSession] = []
        """Sessions with where it was before; what still uses them ends by itself."""
        self._neighbours, self._shelf, self._told = neighbours, shelf, told
        self._cache = cache
        self._lease: Lease | None = None
        self._session: aiohttp.ClientSession | None = None
        self._count = _Count()
        self._breaks = 0
        """Transfers that broke, and were begun anew."""

    async def __aenter__(self) -> CoordinatorHttp:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._lease is not None:
            self._lease.free()
        for session in (*self._old, self._session):
            if session is not None:
                await session.close()

    @property
    def _http(self) -> aiohttp.ClientSession:
        """Made when it is needed: an identity that is gone is then told like any other trouble."""
        there = self._endpoint()
        if self._session is not None and there != self._dialled:
            self._old.append(self._session)
            self._session = None
        if self._session is None:
            headers = {} if self._generation is None else {api.GENERATION: str(self._generation)}
            self._session, self._dialled = there.open(headers=headers, timeout=_TIMEOUT), there
        return self._session

    # ── a bundle ──────────────────────────────────────────────────────────────────────────────

    async def fetch_missing(self, manifest: Manifest, store: BlobStore) -> tuple[Entry, ...]:
        """Fetches the blobs that the store lacks.

        Returns:
            What was fetched.

        Raises:
            FleetError: the coordinator refuses, or doesn't have one.
            IntegrityError: a blob is not what its digest promises.
            NoSpace: there is no room for them; what has arrived is kept.
            OSError: the disk refuses.
        """
        try:
            await self._keep(manifest)
            entries = await asyncio.to_thread(store.missing, manifest)
            await self._make_room(store, entries)
            if entries:
                await self._fetch_all(store, entries)
        except OSError as why:
            if why.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise NoSpace(
                f"the bundle does not fit into {store.root}: {why.strerror}",
                hint="free some space there; what has arrived is kept",
            ) from why
        return entries

    async def _keep(self, manifest: Manifest) -> None:
        """From now on nothing of the bundle is evicted."""
        if self._cache is not None and self._lease is None:
            digests = [entry.sha256 for entry in manifest.entries]
            self._lease = await asyncio.to_thread(Lease, self._cache.folder, digests)

    async def _make_room(self, store: BlobStore, entries: tuple[Entry, ...]) -> None:
        def make() -> None:
            assert self._cache is not None
            taken = sum(room_taken(store, entry.sha256) for entry in entries)
            needed = max(sum(entry.size for entry in entries) - taken, 0)
            self._cache.make_room(needed, what="the bundle")

        if self._cache is not None:
            await asyncio.to_thread(make)

    async def _fetch_all(self, store: BlobStore, entries: tuple[Entry, ...]) -> None:
        self._count = _Count(sum(entry.size for entry in entries))
        teller = asyncio.ensure_future(self._tell())
        try:
            await self._fetch_small(store, [entry for entry in entries if entry.size < SMALL])
            for entry in entries:
                if entry.size >= SMALL:
                    await self._fetch_big(store, entry)
        finally:
            teller.cancel()
            total = self._count.now()[1]
            self._told(total, total)

    async def _fetch_small(self, store: BlobStore, entries: list[Entry]) -> None:
        """Several at a time, since each one is mostly waiting."""
        waiting = iter(entries)

        async def lane() -> None:
            for entry in waiting:
                await self._again(f"fetching {entry.path}", partial(self._fetch, store, entry))

        lanes = [asyncio.ensure_future(lane()) for _ in range(min(SMALL_LANES, len(entries)))]
        try:
            await asyncio.gather(*lanes)
        finally:
            for one in lanes:
                one.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)

    async def _fetch(self, store: BlobStore, entry: Entry) -> None:
        if store.has(entry.sha256, entry.size):  # another worker with the same cache was quicker
            return
        plain = {"Accept-Encoding": "identity"}  # never a .gz that stands beside the file
        async with self._http.get(f"{api.BLOBS}/{entry.sha256}", headers=plain) as answer:
            await _check(answer)
            await into_store(store, entry.sha256, entry.size, answer.content.iter_chunked(CHUNK))
        self._count.add(entry.size)

    async def _fetch_big(self, store: BlobStore, entry: Entry) -> None:
        """In pieces, with the neighbours; from the coordinator alone if that went wrong."""
        blamed: list[str] = []
        for alone in (False, True):
            pieces = await self._place(store, entry)
            if pieces is None:
                return
            swarm = self._swarm(pieces, entry, alone=alone)
            try:
                with self._offered(pieces):
                    await swarm.run()
                    await asyncio.to_thread(pieces.commit)
                log.info("%s: %s", entry.path, swarm.sources)
                return
            except IntegrityError as why:
                blamed = blamed or sorted(swarm.came_from)
                if alone:
                    raise self._damaged(entry, blamed, why) from why
                log.warning(
                    "%s is fetched again from the coordinator alone: %s (pieces came from %s)",
                    entry.path,
                    why.message,
                    ", ".join(blamed) or "it",
                )
                self._count.add(-entry.size)
            finally:
                pieces.close()

    async def _place(self, store: BlobStore, entry: Entry) -> PieceFile | None:
        """Where the pieces go; None when the blob has come by way of another process meanwhile."""
        while not await asyncio.to_thread(store.has, entry.sha256, entry.size):
            pieces = await asyncio.to_thread(store.pieces, entry.sha256, entry.size)
            if pieces is not None:
                self._count.add(pieces.stands)
                return pieces
            with self._lent(entry.sha256):
                await asyncio.sleep(LOOK_SECONDS)
        self._count.add(entry.size)
        return None

    def _swarm(self, pieces: PieceFile, entry: Entry, *, alone: bool) -> Swarm:
        near = self._neighbours
        peers = [] if near is None or alone else [p for p in near.peers if p.node != near.node]
        return Swarm(
            pieces,
            partial(RangeSource, self._endpoint),
            peers={peer.node: partial(_dial, peer, near.identity) for peer in peers if near},
            ring=[peer.node for peer in near.peers] if near else [],
            me=near.node if near else "",
            patience=Patience(f"fetching {entry.path}"),
            arrived=self._count.add,
        )

    def _offered(self, pieces: PieceFile) -> AbstractContextManager[None]:
        return self._shelf.fetching(pieces) if self._shelf else nullcontext()

    def _lent(self, sha256: str) -> AbstractContextManager[None]:
        return self._shelf.elsewhere(sha256) if self._shelf else nullcontext()

    @staticmethod
    def _damaged(entry: Entry, blamed: list[str], why: IntegrityError) -> IntegrityError:
        others = f", and before with pieces from {', '.join(blamed)}" if blamed else ""
        return IntegrityError(
            f"{entry.path} came damaged from the coordinator{others}: {why.message}",
            hint="look at that machine's disk and memory, and submit the job again",
        )

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TOLD_SECONDS)
            self._told(*self._count.now())

    # ── results ───────────────────────────────────────────────────────────────────────────────

    async def send_checkpoint(self, job_id: str, folder: Path) -> None:
        """Sends a checkpoint folder; the coordinator verifies and accepts it.

        Raises:
            FleetError: it was refused.
            OSError: a file can't be read.
        """
        base = f"{api.JOBS}/{job_id}/checkpoints/{folder.name}"
        while True:
            await self._post(base)
            begun = self._breaks
            try:
                for path in _files(folder):
                    relative = quote(path.relative_to(folder).as_posix())
                    await self._put(f"{base}/{relative}", path)
                await self._post(f"{base}/accept")
                return
            except FleetError:
                if self._breaks == begun:
                    raise  # else the coordinator was started again, and knows of no beginning

    async def send_artifacts(self, job_id: str, folder: Path) -> None:
        """Sends all files of the artifacts folder, `proof.json` last; errors as above."""
        paths = sorted(_files(folder), key=lambda path: path.name == "proof.json")
        for path in paths:
            relative = quote(path.relative_to(folder).as_posix())
            await self._put(f"{api.JOBS}/{job_id}/artifacts/{relative}", path)

    async def _put(self, url: str, path: Path) -> None:
        async def put() -> None:
            headers = {"Content-Length": str(path.stat().st_size)}
            async with self._http.put(url, data=chunks(path), headers=headers) as answer:
                await _check(answer)

        await self._again(f"sending {path.name}", put)

    async def _post(self, url: str) -> None:
        async def post() -> None:
            async with self._http.post(url) as answer:
                await _check(answer)

        await self._again("sending a checkpoint", post)

    async def _again(self, what: str, transfer: Callable[[], Awaitable[None]]) -> None:
        """Begins a transfer anew while the coordinator is away or full. A refusal is final."""
        patience = Patience(what)
        while True:
            try:
                await transfer()
                patience.over()
                return
            except (aiohttp.ClientError, ConnectionError, asyncio.TimeoutError, NotYet) as why:
                self._breaks += 1
                await patience.wait(why)


class _Count:
    """Bytes that have arrived, told from many threads."""

    def __init__(self, total: int = 0) -> None:
        self._total, self._have = total, 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """More of them."""
        with self._lock:
            self._have += count

    def now(self) -> tuple[int, int]:
        """Bytes that are here, and all."""
        with self._lock:
            return min(self._have, self._total), self._total


async def _check(answer: aiohttp.ClientResponse) -> None:
    """Passes a good answer. Raises NotYet for one that may be better later; else as `check`."""
    try:
        await check(answer)
    except FleetError as why:
        if answer.status in LATER:
            raise NotYet(why.message) from why
        raise


def _dial(peer: Peer, identity: str) -> RangeSource:
    there = Endpoint(
        host=peer.address, port=peer.port, identity=identity, name=node_host(peer.node)
    )
    return RangeSource(lambda: there, silent=PEER_SILENT_SECONDS)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
