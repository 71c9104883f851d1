"""Transfers that meet a coordinator which is away or full, and disks that are."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from llamaforge.bundle import pieces as pieces_module
from llamaforge.bundle.eviction import Cache
from llamaforge.bundle.manifest import Manifest
from llamaforge.errors import FleetError, NoSpace
from llamaforge.wire import patience
from llamaforge.wire.endpoint import Endpoint
from llamaforge.worker import coordinator_http
from llamaforge.worker.coordinator_http import CoordinatorHttp
from small_disk import small_disk
from swarm_rig import Node, data_of, entry, fleet_of

MB = 1 << 20


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(patience, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(pieces_module, "PIECE", 64 << 10)
    monkeypatch.setattr(coordinator_http, "SMALL", 128 << 10)


class Coordinator:
    """Takes checkpoints and artifacts, with faults that a test chooses."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.said: list[str] = []
        self.answers: list[int] = []
        """Statuses of the next requests; 0 breaks the connection; then all is well."""
        self.begun = False
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.add_routes([web.route("*", "/{path:.*}", self._answer)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        self.socket.unlink(missing_ok=True)
        await web.UnixSite(self._runner, str(self.socket)).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        status = self.answers.pop(0) if self.answers else 201
        name = request.path.rpartition("/")[2]
        if status == 0:
            assert request.transport is not None
            request.transport.abort()
            self.begun = False  # it was started again, and has forgotten what was under way
            return web.Response(status=500)
        if status == 201 and request.method == "POST" and name != "accept":
            self.begun = True
        elif status == 201 and "checkpoints" in request.path and not self.begun:
            status = 404
        self.said.append(f"{request.method} {name} {len(body)} {status}")
        return web.Response(status=status)


@pytest.fixture
async def coordinator(tmp_path: Path) -> AsyncIterator[Coordinator]:
    there = Coordinator(tmp_path / "control.sock")
    await there.start()
    yield there
    await there.stop()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "step-7"
    folder.mkdir()
    (folder / "state.json").write_bytes(b"{}")
    (folder / "weights.safetensors").write_bytes(b"w" * 1000)
    return folder


WHOLE = ["POST step-7 0 201", "PUT state.json 2 201", "PUT weights.safetensors 1000 201"]


async def send(coordinator: Coordinator, checkpoint: Path) -> None:
    async with CoordinatorHttp(lambda: Endpoint(socket=str(coordinator.socket))) as http:
        await asyncio.wait_for(http.send_checkpoint("job", checkpoint), 30)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 507, 429, 408])
async def test_a_full_or_busy_coordinator_is_waited_for(
    coordinator: Coordinator, checkpoint: Path, status: int
) -> None:
    coordinator.answers = [201, status, status, status]
    await send(coordinator, checkpoint)
    good = [line for line in coordinator.said if line.endswith("201")]
    assert good == [*WHOLE, "POST accept 0 201"]


async def test_a_coordinator_that_was_started_again_gets_the_checkpoint_from_the_beginning(
    coordinator: Coordinator, checkpoint: Path
) -> None:
    coordinator.answers = [201, 201, 0]
    await send(coordinator, checkpoint)
    assert coordinator.said == [
        *WHOLE[:2],
        "PUT weights.safetensors 1000 404",
        *WHOLE,
        "POST accept 0 201",
    ]


async def test_a_coordinator_that_is_not_there_yet_is_waited_for(
    coordinator: Coordinator, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await coordinator.stop()
    sending = asyncio.ensure_future(send(coordinator, checkpoint))
    await asyncio.wait({sending}, timeout=0.3)
    assert not sending.done()
    await coordinator.start()
    await sending
    assert coordinator.said[-1] == "POST accept 0 201"
    lines = [line for line in caplog.messages if "waits for the coordinator" in line]
    assert len(lines) == 1, "said once, however long it takes"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
async def test_a_refusal_is_final(coordinator: Coordinator, checkpoint: Path, status: int) -> None:
    coordinator.answers = [201, status]
    with pytest.raises(FleetError, match=str(status)):
        await send(coordinator, checkpoint)
    assert len(coordinator.said) == 2


async def test_a_checkpoint_that_was_deleted_meanwhile_ends_the_waiting(
    coordinator: Coordinator, checkpoint: Path
) -> None:
    coordinator.answers = [201, *[507] * 1000]
    sending = asyncio.ensure_future(send(coordinator, checkpoint))
    while len(coordinator.said) < 3:
        await asyncio.sleep(0.001)
    (checkpoint / "state.json").unlink()
    with pytest.raises(FileNotFoundError):
        await sending


# ── a full disk ───────────────────────────────────────────────────────────────────────────────


async def test_a_node_without_room_says_so_and_goes_on_when_there_is_some(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=6) as disk:
        async with fleet_of(tmp_path) as (fleet, _):
            node = Node(fleet, "a", cache=disk / "cache")
            first, second = data_of(1 * MB, 1), data_of(3 * MB, 2)
            for data in (first, second):
                fleet.store.add_bytes(data)
            manifest = Manifest(entries=(entry("model/a", first), entry("model/b", second)))
            (disk / "other").write_bytes(b"x" * 4 * MB)
            with pytest.raises(NoSpace, match="does not fit"):
                await node.fetch(manifest, [])
            assert node.store.has(manifest.entries[0].sha256), "what has arrived is kept"
            assert not node.store.has(manifest.entries[1].sha256)
            cache = Cache(disk / "cache")
            with pytest.raises(NoSpace, match=r"needs 3 MiB in .* the disk has") as why:
                await node.fetch(manifest, [], cache=cache)
            assert why.value.may_pass
            (disk / "other").unlink()
            asked = fleet.bytes
            assert await node.fetch(manifest, [], cache=cache) == 1
            assert fleet.bytes - asked == 3 * MB


async def test_room_is_made_by_what_was_not_used_for_long(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=6) as disk:
        async with fleet_of(tmp_path) as (fleet, _):
            node = Node(fleet, "a", cache=disk / "cache")
            old, _ = node.store.add_bytes(data_of(4 * MB, 1))
            blob = node.store.blob(old)
            os.utime(blob, ns=(0, blob.stat().st_mtime_ns))
            data = data_of(3 * MB, 2)
            fleet.store.add_bytes(data)
            manifest = Manifest(entries=(entry("model/b", data),))
            cache = Cache(disk / "cache")
            async with node.http([], cache=cache) as http:
                await http.fetch_missing(manifest, node.store)
                assert not node.store.has(old)
                assert cache.sweep(keep=1).gone == (), "the job runs: its blobs stay"
            assert len(cache.sweep(keep=1).gone) == 1


async def test_a_disk_that_fills_while_pieces_come_keeps_what_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The room was not taken: as on file systems that know no fallocate."""
    monkeypatch.setattr(
        "llamaforge.bundle.pieces.os.posix_fallocate",
        lambda file, _, size: os.ftruncate(file, size),
    )
    with small_disk(tmp_path / "disk", megabytes=6) as disk:
        async with fleet_of(tmp_path) as (fleet, _):
            node = Node(fleet, "a", cache=disk / "cache")
            data = data_of(4 * MB)
            fleet.store.add_bytes(data)
            manifest = Manifest(entries=(entry("model/b", data),))
            (disk / "other").write_bytes(b"x" * 4 * MB)
            with pytest.raises(NoSpace):
                await node.fetch(manifest, [])
            stood = node.store.pieces(manifest.entries[0].sha256, 4 * MB)
            assert stood is not None
            kept = stood.stands
            stood.close()
            assert 1 * MB <= kept < 2 * MB
            (disk / "other").unlink()
            asked = fleet.bytes
            await node.fetch(manifest, [])
            assert node.store.path(manifest.entries[0].sha256).read_bytes() == data
            assert fleet.bytes - asked == 4 * MB - kept
