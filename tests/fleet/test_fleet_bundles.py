"""A bundle with a big file on a fleet of real processes: nodes share it, and outlive a restart."""

from __future__ import annotations

import re
import time
from signal import Signals

from fleet_rig import Rig
from llamaforge.bundle.manifest import Entry, Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.spec.states import JobState
from llamaforge.wire.updates import Ended
from swarm_rig import data_of

MB = 1 << 20
SIZE = 24 * MB + 5
PIECES = 7


async def run(rig: Rig, name: str, manifest: Manifest, store: BlobStore) -> Ended:
    job, small, _ = rig.job(name, "steps=2")
    whole = Manifest(entries=tuple(sorted([*small.entries, *manifest.entries], key=_path)))
    async with rig.client() as client:
        await client.submit(
            job,
            whole,
            store,
            output_dir=rig.root / "runs" / name,
            checkpoint_dir=rig.root / "runs" / name / "checkpoints",
        )
        updates = [update async for update in client.follow(name)]
    ended = updates[-1]
    assert isinstance(ended, Ended)
    return ended


def _path(entry: Entry) -> str:
    return entry.path


async def test_two_workers_share_a_big_file_and_fetch_it_once(rig: Rig) -> None:
    await rig.waiting("worker-1", "worker-2")
    store = BlobStore(rig.root / "user")
    sha256, size = store.add_bytes(data_of(SIZE))
    manifest = Manifest(entries=(Entry(path="model/big", sha256=sha256, size=size),))
    ended = await run(rig, "first", manifest, store)
    assert ended.state is JobState.DONE, ended.reason
    for name, other in (("worker-1", "worker-2"), ("worker-2", "worker-1")):
        found = re.search(
            rf"model/big: (\d) of {PIECES} pieces from the coordinator, (\d) from {other}",
            rig.log(name),
        )
        assert found, rig.log(name)
        assert int(found[1]) + int(found[2]) == PIECES
        assert int(found[1]) in (3, 4)
    ended = await run(rig, "second", manifest, store)
    assert ended.state is JobState.DONE, ended.reason
    assert rig.log("worker-1").count("model/big: ") == 1, "the second job finds it"


async def test_a_damaged_copy_in_a_cache_is_noticed_and_fetched_from_the_other(rig: Rig) -> None:
    await rig.waiting("worker-1", "worker-2")
    store = BlobStore(rig.root / "user")
    sha256, size = store.add_bytes(data_of(SIZE))
    manifest = Manifest(entries=(Entry(path="model/big", sha256=sha256, size=size),))
    await run(rig, "first", manifest, store)
    blob = rig.root / "worker-2-cache" / "blobs" / "blobs" / sha256[:2] / sha256
    blob.chmod(0o600)
    with blob.open("r+b") as file:
        file.write(b"not what it was")
    ended = await run(rig, "second", manifest, store)
    assert ended.state is JobState.DONE, ended.reason
    assert blob.read_bytes()[:15] == data_of(SIZE)[:15]
    assert "is damaged: its SHA-256 is" in rig.log("worker-2")


async def test_a_worker_that_is_killed_while_it_fetches_goes_on_with_its_pieces(rig: Rig) -> None:
    await rig.waiting("worker-1", "worker-2")
    store = BlobStore(rig.root / "user")
    sha256, size = store.add_bytes(data_of(SIZE))
    manifest = Manifest(entries=(Entry(path="model/big", sha256=sha256, size=size),))
    job, small, _ = rig.job("first", "steps=2")
    whole = Manifest(entries=(*small.entries, *manifest.entries))
    note = rig.root / "worker-2-cache" / "blobs" / "incoming" / f"{sha256}.have"
    async with rig.client() as client:
        await client.submit(
            job,
            whole,
            store,
            output_dir=rig.root / "runs" / "first",
            checkpoint_dir=rig.root / "runs" / "first" / "checkpoints",
        )
        until = time.monotonic() + 60
        while not (note.exists() and b"+" in note.read_bytes()):
            assert time.monotonic() < until, rig.log("worker-2")
            time.sleep(0.001)
        rig.end("worker-2", Signals.SIGKILL)
        stood = note.read_bytes().count(b"+") if note.exists() else PIECES
        rig.worker("worker-2")
        updates = [update async for update in client.follow("first")]
    ended = updates[-1]
    assert isinstance(ended, Ended)
    assert ended.state is JobState.DONE, ended.reason
    ended = await run(rig, "second", manifest, store)  # the first may have gone on without it
    assert ended.state is JobState.DONE, ended.reason
    told = r"model/big: (\d) of 7 pieces from the coordinator(?:, (\d) from worker-1)?"
    fetched = [int(own) + int(near or 0) for own, near in re.findall(told, rig.log("worker-2"))]
    assert fetched == [PIECES - stood], "what stood was not fetched again"
