"""What a node finds out about itself: refusals name the fix, slow things are warnings."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from llamaforge.bundle.manifest import Entry, Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import LlamaForgeError
from llamaforge.spec.fleet import WorkerSettings, worker_settings
from llamaforge.wire.messages import LinkSpeed, Peer, Preflight, PreflightReport
from llamaforge.worker import interface, preflight
from llamaforge.worker.preflight import Preflights


class FakeCanary:
    def __init__(self) -> None:
        self.error: Exception | None = None
        self.hangs = False

    async def digest(self, precision: str, threads: int) -> str:
        if self.hangs:
            await asyncio.Event().wait()
        if self.error:
            raise self.error
        return f"{precision}{threads}"


class FakeLinks:
    async def measure(self, peers: Sequence[Peer], *, own: str) -> tuple[LinkSpeed, ...]:
        return tuple(LinkSpeed(node=peer.node, ok=True) for peer in peers if peer.node != own)


class World:
    def __init__(self, folder: Path) -> None:
        self.folder, self.canary = folder, FakeCanary()
        self.settings = _settings(folder)
        self.preflights = Preflights(lambda: self.settings, self.canary, FakeLinks())  # type: ignore[arg-type]

    async def answer(
        self,
        *,
        address: str = "127.0.0.1",
        canary: str = "bf16",
        entries: tuple[Entry, ...] = (),
        peers: tuple[Peer, ...] = (),
    ) -> PreflightReport:
        question = Preflight(
            job_id="j",
            generation=3,
            canary=canary,
            threads=2,
            manifest=Manifest(entries=entries),
            peers=peers,
        )
        return await self.preflights.answer(question, address=address)


def _settings(folder: Path, **flags: object) -> WorkerSettings:
    given = {
        "name": "a",
        "state_dir": str(folder / "state"),
        "cache_dir": str(folder / "cache"),
        **flags,
    }
    return worker_settings(given, {"HOME": str(folder)})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_node_in_order(world: World) -> None:
    peers = tuple(Peer(node=name, address="127.0.0.1", port=1) for name in "ab")
    report = await world.answer(peers=peers)
    assert (report.refusal, report.warnings) == ("", ())
    assert (report.job_id, report.generation) == ("j", 3)
    assert report.canary == "bf162"
    assert [link.node for link in report.links] == ["b"]
    assert report.disk_free > 0
    assert report.fingerprint["python"]
    assert not (await world.answer(canary="")).canary


async def test_an_address_that_is_not_its_own(world: World) -> None:
    report = await world.answer(address="192.0.2.77")
    assert report.refusal == "its address 192.0.2.77 is on none of its interfaces"
    assert not report.passing
    assert "--address" in report.hint
    for nonsense in ("", "node1.example.org"):
        assert "on none of its interfaces" in (await world.answer(address=nonsense)).refusal


async def test_a_loopback_address_among_real_ones(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = Peer(node="b", address="192.0.2.7", port=1)
    here = [("lo", "127.0.0.1"), ("eth0", "192.0.2.9")]
    monkeypatch.setattr(interface, "addresses", lambda: iter(here))
    report = await world.answer(peers=(far,))
    assert "can be reached from this machine only" in report.refusal
    assert report.hint == "tell its worker another one with --address: 192.0.2.9 (eth0)"


async def test_a_bundle_for_which_there_is_no_room(world: World) -> None:
    huge = Entry(path="model/model.safetensors", sha256="ab" * 32, size=1 << 60)
    report = await world.answer(entries=(huge,))
    assert f"room in {world.folder / 'cache'}" in report.refusal
    assert "llamaforge clean --dry-run" in report.hint
    assert "--cache-dir" in report.hint


async def test_a_limit_of_the_cache_counts_and_what_is_there_needs_no_room(world: World) -> None:
    store = BlobStore(world.folder / "cache" / "blobs")
    sha256, size = store.add_bytes(os.urandom(100_000))
    here = Entry(path="data/a", sha256=sha256, size=size)
    more = Entry(path="data/b", sha256="cd" * 32, size=1 << 20)
    world.settings = _settings(world.folder, cache_limit="512K")
    assert (await world.answer(entries=(here,))).refusal == ""
    report = await world.answer(entries=(here, more))
    assert "whose limit is 512 KiB" in report.refusal


async def test_a_full_disk_under_the_state_folder(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = SimpleNamespace(total=10, used=10, free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    report = await world.answer()
    assert "1 MiB free, 64 MiB are the least" in report.refusal
    assert report.passing
    assert "--state-dir" in report.hint


async def test_a_canary_that_fails_or_takes_too_long_is_a_warning(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.canary.error = LlamaForgeError("the canary slice could not be computed", hint="x")
    report = await world.answer()
    assert (report.refusal, report.canary) == ("", "")
    assert report.warnings == ("the canary slice could not be computed",)
    world.canary.hangs = True
    monkeypatch.setattr(preflight, "SECONDS", 0.2)
    assert "was not computed within" in (await world.answer()).warnings[0]
