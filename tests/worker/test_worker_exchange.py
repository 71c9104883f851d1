"""What a node shares: who may ask, what its coordinator hears of the cache and of a fetch."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import make_job
from llamaforge.bundle.manifest import Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.spec.fleet import WorkerSettings
from llamaforge.wire.endpoint import Endpoint
from llamaforge.wire.messages import FromWorker, Inventory, Peer, RankSaid, Roster, StartRanks
from llamaforge.worker import exchange as module
from llamaforge.worker.exchange import Exchange

MB = 1 << 20


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    return WorkerSettings(
        name="a",
        state_dir=str(tmp_path / "state"),
        cache_dir=str(tmp_path / "cache"),
        cache_limit="10M",
    )


@pytest.fixture
def exchange(settings: WorkerSettings) -> Exchange:
    return Exchange(lambda: settings)


def order(*names: str) -> StartRanks:
    peers = tuple(Peer(node=name, address="127.0.0.1", port=1) for name in names)
    return StartRanks(
        job=make_job(),
        peers=peers,
        generation=1,
        manifest=Manifest(),
        first_rank=2,
        count=1,
        world_size=3,
    )


def members(exchange: Exchange, *names: str) -> list[bool]:
    return [exchange._is_member(name) for name in names]


def test_the_last_roster_says_who_may_ask(exchange: Exchange) -> None:
    assert members(exchange, "a", "b") == [False, False], "nobody, before anything was said"
    exchange.transfers(Endpoint(socket="/x"), order("a", "b"), lambda _: None)
    assert members(exchange, "a", "b", "c") == [True, True, False]
    exchange.roster(Roster(nodes=("a", "c")))
    assert members(exchange, "a", "b", "c") == [True, False, True]
    exchange.transfers(Endpoint(socket="/x"), order("a", "b"), lambda _: None)
    assert members(exchange, "b") == [False], "an order lets nobody back in"
    exchange.roster(Roster(nodes=()))
    assert members(exchange, "a", "c") == [False, False]


async def test_the_coordinator_hears_of_a_cache_that_has_changed(
    exchange: Exchange, settings: WorkerSettings
) -> None:
    store = BlobStore(Path(settings.cache_dir) / "blobs")
    store.add_bytes(b"x" * MB)
    first = await exchange.inventory()
    assert isinstance(first, Inventory)
    assert (first.cache_limit, first.cache_bytes >= MB) == (10 * MB, True)
    assert first.disk_free > 0
    store.add_bytes(b"small")
    assert await exchange.inventory() is None, "less than a hundredth of the limit"
    assert await exchange.inventory(always=True) is not None
    store.add_bytes(b"y" * MB)
    assert await exchange.inventory() is not None


def test_a_fetch_is_told_now_and_then_and_shown_always(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[FromWorker] = []
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    told = module._FetchLog(exchange, order("a", "b"), "a", said.append)
    for have in range(0, 12 * MB, MB):
        told(have, 12 * MB)
        assert "of 13 MB" in exchange.fetching
        now[0] += 1.0
    told(12 * MB, 12 * MB)
    assert exchange.fetching == ""
    notes = [message for message in said if isinstance(message, RankSaid)]
    assert len(notes) == len(said) == 3, "at 100, 105 and 110 seconds"
    assert (notes[0].rank, notes[0].generation) == (2, 1)
    assert notes[1].report.fields == {"node": "a", "have": 5 * MB, "total": 12 * MB}  # type: ignore[union-attr]
