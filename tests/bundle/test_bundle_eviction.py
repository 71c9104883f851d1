"""One limit for a cache: the longest unused goes first, and never what is in use."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.bundle import eviction
from llamaforge.bundle.eviction import Cache, Item, text
from llamaforge.bundle.lease import Lease, held, sweeping
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import NoSpace

KB = 1024
DAY = 86400.0


class World:
    """A cache with things of known age."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = BlobStore(folder / "blobs")

    def blob(self, name: str, size: int = 40 * KB, age: float = DAY) -> str:
        data = hashlib.sha256(name.encode()).digest() * (size // 32)
        sha256, _ = self.store.add_bytes(data)
        self.age(self.store.blob(sha256), age)
        return sha256

    def rows(self, name: str, size: int = 40 * KB, age: float = DAY) -> Path:
        folder = self.folder / "rows" / name
        folder.mkdir(parents=True)
        for file in ("train.jsonl", "report.json"):
            (folder / file).write_bytes(b"x" * (size // 2))
            self.age(folder / file, age)
        return folder

    @staticmethod
    def age(path: Path, seconds: float) -> None:
        then = time.time_ns() - int(seconds * 1e9)
        keep = len(path.name) == 64  # a blob's modification time is part of its digest's note
        os.utime(path, ns=(then, path.stat().st_mtime_ns if keep else then))

    def cache(self, limit: int | None = None, **how: object) -> Cache:
        return Cache(self.folder, limit, **how)  # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "cache")


def size(world: World) -> int:
    return sum(item.size for item in world.cache().survey())


def test_the_longest_unused_goes_first_whatever_kind_it_is(world: World) -> None:
    new, old = world.blob("new", age=DAY), world.blob("old", age=9 * DAY)
    older = world.rows("older", age=20 * DAY)
    done = world.cache(size(world) - 50 * KB).sweep()
    assert [item.kind for item in done.gone] == ["rows", "blobs"]
    assert not older.exists()
    assert not world.store.has(old)
    assert world.store.has(new)
    assert done.size == size(world) <= done.limit


def test_what_fits_stays(world: World) -> None:
    blob = world.blob("a")
    assert world.cache(size(world)).sweep().gone == ()
    assert world.store.has(blob)


def test_a_use_makes_young_and_changes_nothing_else(world: World) -> None:
    used, unused = world.blob("used", age=9 * DAY), world.blob("unused", age=DAY)
    before = world.store.blob(used).stat().st_mtime_ns
    world.store.path(used)
    assert world.store.blob(used).stat().st_mtime_ns == before
    world.cache(size(world) - KB).sweep()
    assert world.store.has(used)
    assert not world.store.has(unused)


def test_a_digest_goes_with_its_blob(world: World) -> None:
    world.blob("a")
    assert len(list((world.store.root / "digests").iterdir())) == 1
    world.cache(1).sweep()
    assert list((world.store.root / "digests").iterdir()) == []


def test_nothing_that_is_leased_goes(world: World) -> None:
    leased, other = world.blob("leased", age=99 * DAY), world.blob("other")
    with Lease(world.folder, [leased]):
        done = world.cache(1).sweep()
        assert world.store.has(leased)
        assert not world.store.has(other)
        assert done.kept >= 40 * KB
        young = world.blob("young", age=-1)
        world.cache(1).sweep()
        assert world.store.has(young), "what is used while a lease is held is in use"
    world.cache(1).sweep()
    assert not world.store.has(leased)


def test_a_lease_ends_with_its_process(world: World) -> None:
    leased = world.blob("leased")
    code = (
        "import sys, time; from pathlib import Path\n"
        "from llamaforge.bundle.lease import Lease\n"
        "lease = Lease(Path(sys.argv[1]), [sys.argv[2]]); print('held', flush=True)\n"
        "time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(world.folder), leased], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    world.cache(1).sweep()
    assert world.store.has(leased)
    child.kill()
    child.wait()
    world.cache(1).sweep()
    assert not world.store.has(leased)
    with sweeping(world.folder):
        assert held(world.folder) == []
    assert list((world.folder / "leases").iterdir()) == []


def test_a_named_lease_outlasts_its_holder_for_a_while(world: World) -> None:
    kept, other = world.blob("kept"), world.blob("other")
    code = (
        "import os, sys; from pathlib import Path\n"
        "from llamaforge.bundle.lease import Lease\n"
        "lease = Lease(Path(sys.argv[1]), [], name='coordinator', lasts=600)\n"
        "lease.change([sys.argv[2]]); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(world.folder), kept], check=False)
    world.cache(1).sweep()
    assert [world.store.has(blob) for blob in (kept, other)] == [True, False]
    with Lease(world.folder, [], name="coordinator", lasts=600):
        pass  # taken over, and freed in order
    world.cache(1).sweep()
    assert not world.store.has(kept)


def test_a_torn_lease_keeps_nothing(world: World) -> None:
    blob = world.blob("a")
    (world.folder / "leases").mkdir()
    (world.folder / "leases" / "torn").write_bytes(b'{"pid": 1, "sin')
    world.cache(1).sweep()
    assert not world.store.has(blob)


def test_what_a_caller_has_in_use_and_what_is_recent_stays(world: World) -> None:
    mine, fresh, old = world.blob("mine"), world.blob("fresh", age=60), world.blob("old")
    world.cache(1, in_use=lambda: [mine], recent=3600).sweep()
    assert [world.store.has(blob) for blob in (mine, fresh, old)] == [True, True, False]


def test_rows_that_a_blob_in_use_refers_to_stay(world: World) -> None:
    folder = world.rows("kept", age=99 * DAY)
    sha256, _ = world.store.add_file(folder / "train.jsonl")
    world.age(world.store.reference(sha256), 99 * DAY)
    with Lease(world.folder, [sha256]):
        world.cache(1).sweep()
        assert world.store.has(sha256)
    world.cache(1).sweep()
    assert not folder.exists()


def test_references_to_what_is_gone_are_swept_though_there_is_room(
    world: World, tmp_path: Path
) -> None:
    outside = tmp_path / "model.safetensors"
    outside.write_bytes(b"weights")
    sha256, _ = world.store.add_file(outside)
    assert world.cache().sweep().gone == ()
    outside.unlink()
    gone = world.cache().sweep().gone
    assert [(item.kind, item.digest) for item in gone] == [("references", sha256)]


def test_a_running_fetch_stays_and_a_broken_one_goes(world: World) -> None:
    size = 200 * KB
    running, broken = (world.store.pieces(name * 64, size) for name in ("a", "b"))
    assert running is not None
    assert broken is not None
    broken.close()
    done = world.cache(1).sweep()
    assert [item.digest for item in done.gone] == ["b" * 64]
    assert done.gone[0].size >= size, "the room was taken, though nothing had come"
    assert (world.store.root / "incoming" / f"{'a' * 64}.part").exists()
    running.close()


def test_nameless_files_of_broken_transfers_go_after_a_while(world: World) -> None:
    incoming = world.store.folder("incoming")
    for name, age in (("0123456789abcdef.young", 60.0), ("0123456789abcdef0.old", 2 * 3600.0)):
        (incoming / name).write_bytes(b"x" * 5000)
        world.age(incoming / name, age)
    world.cache().sweep()
    assert [path.name for path in incoming.iterdir()] == ["0123456789abcdef.young"]


def test_what_is_not_known_is_counted_and_stays(world: World) -> None:
    world.folder.mkdir(parents=True)
    (world.folder / "notes.txt").write_bytes(b"x" * 40 * KB)
    done = world.cache(1).sweep()
    assert [item.kind for item in done.left] == ["other"]
    assert done.size >= 40 * KB


def test_a_dry_run_changes_nothing(world: World) -> None:
    blob = world.blob("a")
    done = world.cache().sweep(keep=1, dry_run=True)
    assert [item.digest for item in done.gone] == [blob]
    assert world.store.has(blob)


def test_room_is_made_or_the_reason_is_said(world: World) -> None:
    old = world.blob("old", size=400 * KB)
    world.cache(500 * KB).make_room(300 * KB, what="the bundle")
    assert not world.store.has(old)
    leased = world.blob("leased", size=400 * KB)
    with Lease(world.folder, [leased]), pytest.raises(NoSpace) as full:
        world.cache(500 * KB).make_room(300 * KB, what="the bundle of job x")
    assert "the bundle of job x needs 300 KiB" in full.value.message
    assert "LLAMAFORGE_CACHE_LIMIT" in full.value.hint
    assert full.value.exit_code == 2
    assert full.value.may_pass


def test_a_fair_share_gives_way_where_the_disk_has_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eviction.Cache, "limit", property(lambda _: 100 * KB))
    leased = world.blob("leased")
    with Lease(world.folder, [leased]):
        world.cache().make_room(300 * KB, what="the bundle")
    with pytest.raises(NoSpace, match="the disk has"):
        world.cache().make_room(1 << 50, what="the bundle")


@pytest.mark.parametrize(
    ("total", "limit"),
    [
        (4 << 30, 2 << 30),
        (15 << 30, (15 << 30) // 2),
        (40 << 30, 10 << 30),
        (1 << 40, (1 << 40) // 5),
    ],
)
def test_the_fair_share_of_a_disk(
    world: World, monkeypatch: pytest.MonkeyPatch, total: int, limit: int
) -> None:
    disk = type("Disk", (), {"total": total, "used": 0, "free": total})
    monkeypatch.setattr(eviction.shutil, "disk_usage", lambda _: disk)
    assert world.cache().limit == limit


def test_several_sweep_at_once(world: World) -> None:
    for number in range(30):
        world.blob(f"blob {number}", age=(number + 1) * DAY)
    code = (
        "import sys; from pathlib import Path\n"
        "from llamaforge.bundle.eviction import Cache\n"
        "print(len(Cache(Path(sys.argv[1]), 600 * 1024).sweep().gone))"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(world.folder)], stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    gone = sum(int(child.communicate()[0]) for child in children)
    left = world.cache().survey()
    assert gone + len(left) == 30, "each blob went once"
    assert 500 * KB < sum(item.size for item in left) <= 600 * KB


@given(
    ages=st.lists(st.integers(1, 1000), min_size=1, max_size=8, unique=True),
    keep=st.integers(1, 400 * KB),
)
def test_what_goes_is_older_than_all_that_stays(
    tmp_path_factory: pytest.TempPathFactory, ages: list[int], keep: int
) -> None:
    world = World(tmp_path_factory.mktemp("cache"))
    for age in ages:
        world.blob(str(age), age=age * 60.0)
    done = world.cache().sweep(keep=keep)
    assert done.size <= keep
    oldest_left = min((item.used for item in done.left), default=float("inf"))
    assert all(item.used < oldest_left for item in done.gone)

    def needless(item: Item) -> bool:
        return done.size + item.size <= keep

    youngest_gone = max(done.gone, key=lambda item: item.used, default=None)
    assert youngest_gone is None or not needless(youngest_gone), "no more goes than must"


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1536, "1.5 KiB"),
        (50 << 30, "50 GiB"),
        (1 << 40, "1 TiB"),
    ],
)
def test_sizes_for_people(size: int, said: str) -> None:
    assert text(size) == said
