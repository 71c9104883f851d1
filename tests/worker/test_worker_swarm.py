"""Nodes that need the same blob: the coordinator sends it about once, whatever fails."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

import pytest

from llamaforge.bundle import pieces as pieces_module
from llamaforge.bundle.manifest import Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import FleetError, IntegrityError
from llamaforge.wire import patience
from llamaforge.worker import coordinator_http, swarm
from llamaforge.worker.peer import shelf
from swarm_rig import Fleet, Node, data_of, entry, fleet_of

PIECE = 64 << 10
SIZE = 40 * PIECE - 77


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces_module, "PIECE", PIECE)
    monkeypatch.setattr(coordinator_http, "SMALL", 2 * PIECE)
    monkeypatch.setattr(patience, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(swarm, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(shelf, "PIECE_SECONDS", 0.3)
    monkeypatch.setattr(shelf, "BEGIN_SECONDS", 0.3)


def big(
    fleet: Fleet, seed: int = 0, path: str = "model/model.safetensors"
) -> tuple[bytes, Manifest]:
    data = data_of(SIZE, seed)
    fleet.store.add_bytes(data)
    return data, Manifest(entries=(entry(path, data),))


def whole(node: Node, manifest: Manifest) -> bytes:
    return node.store.path(manifest.entries[0].sha256).read_bytes()


async def test_the_coordinator_sends_a_blob_once_to_three_nodes(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, "a", "b", "c") as (fleet, nodes):
        data, manifest = big(fleet)
        await asyncio.gather(*(node.fetch(manifest, nodes) for node in nodes))
        assert [whole(node, manifest) == data for node in nodes] == [True] * 3
        assert fleet.bytes == SIZE, "each piece was asked for once"


async def test_small_blobs_come_from_the_coordinator_alone(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, "a", "b") as (fleet, nodes):
        files = [data_of(100 + n, n) for n in range(20)]
        for data in files:
            fleet.store.add_bytes(data)
        manifest = Manifest(entries=tuple(entry(f"code/{n}", d) for n, d in enumerate(files)))
        assert await nodes[0].fetch(manifest, nodes) == 20
        assert await nodes[0].fetch(manifest, nodes) == 0
        assert len(fleet.asked) == 20
        assert all(not header for _, header in fleet.asked)


async def test_a_node_that_comes_late_takes_its_share_only(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, "a", "b", "c", "d") as (fleet, nodes):
        data, manifest = big(fleet)
        *first, late = nodes
        await asyncio.gather(*(node.fetch(manifest, first) for node in first))
        before = fleet.bytes
        await late.fetch(manifest, nodes)
        assert whole(late, manifest) == data
        assert fleet.bytes - before <= 10 * PIECE


@pytest.mark.parametrize("gone", ["never there", "removed", "without the blob"])
async def test_a_peer_that_fails_is_replaced(tmp_path: Path, gone: str) -> None:
    async with fleet_of(tmp_path, "a", "b", "c") as (fleet, nodes):
        data, manifest = big(fleet)
        *rest, last = nodes
        if gone == "never there":
            last.stop()
        elif gone == "removed":
            fleet.members.discard("a")  # b and c turn a away; a has the coordinator
        await asyncio.gather(*(node.fetch(manifest, nodes) for node in rest))
        assert [whole(node, manifest) == data for node in rest] == [True] * 2
        most = SIZE * 2 if gone == "removed" else SIZE
        assert fleet.bytes <= most + 2 * PIECE, "the others share what was the lost one's"


async def test_a_peer_with_another_ones_certificate_is_not_believed(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, "a", "b") as (fleet, (a, b)):
        data, manifest = big(fleet)
        b.identity = fleet.identity("x.node.llamaforge.internal", "x")
        b.store.add_bytes(data)
        await a.fetch(manifest, [a, b])
        assert whole(a, manifest) == data
        assert fleet.bytes == SIZE


async def test_a_peer_that_stalls_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(swarm, "SLOW_SECONDS", 0.2)
    monkeypatch.setattr(swarm, "SLOW_TIMES", 0.0)
    async with fleet_of(tmp_path, "a", "b") as (fleet, (a, b)):
        data, manifest = big(fleet)
        blob = manifest.entries[0]
        stuck = b.store.pieces(blob.sha256, blob.size)
        assert stuck is not None
        with b.shelf.fetching(stuck):  # it says that it fetches, and never gets on
            await a.fetch(manifest, [a, b])
        stuck.close()
        assert whole(a, manifest) == data
    assert "without b: no piece for" in caplog.text


async def test_a_lying_peer_costs_a_second_fetch_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with fleet_of(tmp_path, "a", "b") as (fleet, (a, b)):
        data, manifest = big(fleet)
        blob = manifest.entries[0]
        fake = tmp_path / "fake"
        fake.write_bytes(b"x" * SIZE)
        b.store.path = lambda _: fake  # type: ignore[method-assign, assignment]
        await a.fetch(manifest, [a, b])
        assert whole(a, manifest) == data
        assert "pieces came from b" in caplog.text
        assert BlobStore(a.store.root).pieces(blob.sha256, blob.size) is not None


async def test_wrong_bytes_from_the_coordinator_too_are_an_error_that_names_all(
    tmp_path: Path,
) -> None:
    async with fleet_of(tmp_path, "a", "b") as (fleet, (a, b)):
        _, manifest = big(fleet)
        fake = tmp_path / "fake"
        fake.write_bytes(b"x" * SIZE)
        fleet.lies[manifest.entries[0].sha256] = fake
        b.store.path = lambda _: fake  # type: ignore[method-assign, assignment]
        with pytest.raises(IntegrityError, match=r"from the coordinator, and before .* from b"):
            await a.fetch(manifest, [a, b])
        assert list((a.store.root / "incoming").iterdir()) == []
        assert not a.store.has(manifest.entries[0].sha256)


async def test_a_broken_fetch_goes_on_where_it_was(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, "a") as (fleet, (a,)):
        data, manifest = big(fleet)
        blob = manifest.entries[0]
        before = a.store.pieces(blob.sha256, blob.size)
        assert before is not None
        for number in range(30):
            start, length = before.span(number)
            before.write(start, data[start : start + length])
            before.mark(number)
        before.close()
        await a.fetch(manifest, [a])
        assert whole(a, manifest) == data
        assert fleet.bytes == SIZE - 30 * PIECE


async def test_a_coordinator_that_goes_away_is_waited_for(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, "a", "b") as (fleet, nodes):
        data, manifest = big(fleet)
        await fleet.stop()
        fetching = [asyncio.ensure_future(node.fetch(manifest, nodes)) for node in nodes]
        await asyncio.wait(fetching, timeout=0.5)
        assert not any(task.done() for task in fetching)
        fleet.answer = 503  # it is back, and not ready
        await fleet.start()
        await asyncio.wait(fetching, timeout=0.3)
        assert not any(task.done() for task in fetching)
        fleet.answer = 0
        await asyncio.gather(*fetching)
        assert [whole(node, manifest) == data for node in nodes] == [True] * 2
        assert fleet.bytes == SIZE, "nobody lost patience with the other"


async def test_a_coordinator_that_comes_back_at_another_port_is_found(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, "a") as (fleet, (a,)):
        data, manifest = big(fleet)
        await fleet.stop()
        fetching = asyncio.ensure_future(a.fetch(manifest, [a]))
        await asyncio.wait({fetching}, timeout=0.2)
        assert not fetching.done()
        fleet.port = 0
        await fleet.start()
        await fetching
        assert whole(a, manifest) == data


async def test_a_refusal_is_final(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, "a", "b") as (fleet, (a, b)):
        _, manifest = big(fleet)
        fleet.answer = 403
        with pytest.raises(FleetError, match="403"):
            await a.fetch(manifest, [a, b])


async def test_a_fetch_that_is_given_up_ends_at_once_and_keeps_its_pieces(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, "a", "b") as (fleet, (a, b)):
        _, manifest = big(fleet)
        blob = manifest.entries[0]
        await fleet.stop()
        fetching = asyncio.ensure_future(a.fetch(manifest, [a, b]))
        await asyncio.wait({fetching}, timeout=0.2)
        fetching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(fetching, 5)
        again = a.store.pieces(blob.sha256, blob.size)
        assert again is not None, "the lock is free"
        again.close()


async def test_two_workers_with_one_cache_fetch_once(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, "a") as (fleet, (a,)):
        b = Node(fleet, "b", cache=tmp_path / "a")
        await b.start()
        data, manifest = big(fleet)
        await asyncio.gather(a.fetch(manifest, [a, b]), b.fetch(manifest, [a, b]))
        b.stop()
        assert whole(a, manifest) == data == whole(b, manifest)
        assert fleet.bytes == SIZE


async def test_how_far_it_is_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator_http, "TOLD_SECONDS", 0.001)
    told: list[tuple[int, int]] = []
    async with fleet_of(tmp_path, "a") as (fleet, (a,)):
        _, manifest = big(fleet)
        await a.fetch(manifest, [a], told=lambda have, all_: told.append((have, all_)))
    assert told == sorted(told)
    assert told[-1] == (SIZE, SIZE)
    assert 0 < told[len(told) // 2][0] <= SIZE
