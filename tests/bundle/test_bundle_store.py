"""The blob store: nothing copied, nothing believed without its digest, several at once."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.bundle.manifest import Entry, Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import IntegrityError


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "store")


def entry(path: str, data: bytes) -> Entry:
    return Entry(path=path, sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def leftovers(store: BlobStore) -> list[Path]:
    return list(store.folder("incoming").iterdir())


def test_a_file_is_referenced_and_not_copied(store: BlobStore, tmp_path: Path) -> None:
    original = tmp_path / "model.safetensors"
    original.write_bytes(b"weights" * 1000)
    sha256, size = store.add_file(original)
    assert (sha256, size) == (hashlib.sha256(original.read_bytes()).hexdigest(), 7000)
    assert store.path(sha256) == original
    assert sum(f.stat().st_size for f in store.root.rglob("*") if f.is_file()) < 1000


def test_a_changed_original_is_noticed_and_counts_as_missing(
    store: BlobStore, tmp_path: Path
) -> None:
    original = tmp_path / "train.jsonl"
    original.write_bytes(b"one")
    sha256, _ = store.add_file(original)
    original.write_bytes(b"two")
    os.utime(original, ns=(0, 0))
    manifest = Manifest(entries=(entry("data/train.jsonl", b"one"),))
    assert [e.sha256 for e in store.missing(manifest)] == [sha256]
    with pytest.raises(IntegrityError, match=r"train\.jsonl has changed"):
        store.lay_out(manifest, tmp_path / "bundle")


def test_a_blob_whose_original_changed_can_be_added_again(store: BlobStore, tmp_path: Path) -> None:
    original, copy = tmp_path / "a", tmp_path / "b"
    original.write_bytes(b"same")
    copy.write_bytes(b"same")
    sha256, _ = store.add_file(original)
    original.unlink()
    assert not store.has(sha256)
    assert store.add_file(copy)[0] == sha256
    assert store.path(sha256) == copy


def test_an_unchanged_file_is_digested_once(
    store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = tmp_path / "model"
    original.write_bytes(b"weights")
    first = store.add_file(original)

    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(BlobStore, "_learn_digest", refuse)
    assert store.add_file(original) == first
    original.write_bytes(b"another")
    os.utime(original, ns=(1, 1))
    with pytest.raises(AssertionError, match="read again"):
        store.add_file(original)


@given(data=st.binary(max_size=5000), cuts=st.lists(st.integers(0, 5000), max_size=5))
def test_incoming_takes_any_chunks(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, cuts: list[int]
) -> None:
    store = BlobStore(tmp_path_factory.mktemp("store"))
    wanted = entry("x", data)
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    with store.incoming(wanted.sha256, wanted.size) as blob:
        for start, end in itertools.pairwise(edges):
            blob.write(data[start:end])
    assert store.path(wanted.sha256).read_bytes() == data
    assert leftovers(store) == []


@pytest.mark.parametrize("sent", [b"right lengtj", b"short", b"much too long for this"])
def test_wrong_bytes_are_refused_and_leave_nothing(store: BlobStore, sent: bytes) -> None:
    wanted = entry("x", b"right length")
    with (
        pytest.raises(IntegrityError),
        store.incoming(wanted.sha256, wanted.size) as blob,
    ):
        blob.write(sent)
    assert not store.has(wanted.sha256)
    assert leftovers(store) == []


def test_an_interrupted_transfer_leaves_nothing(store: BlobStore) -> None:
    wanted = entry("x", b"whole")

    def broken() -> None:
        with store.incoming(wanted.sha256, wanted.size) as blob:
            blob.write(b"who")
            raise ConnectionError

    with pytest.raises(ConnectionError):
        broken()
    assert not store.has(wanted.sha256)
    assert leftovers(store) == []


def test_a_digest_that_climbs_out_is_refused(store: BlobStore) -> None:
    for ask in (store.path, store.blob, lambda name: store.receive(name, 1)):
        with pytest.raises(IntegrityError, match="not a SHA-256"):
            ask("../../etc/passwd")
    assert not store.has("../../etc/passwd")


def test_a_damaged_blob_is_noticed_and_fetched_again(store: BlobStore, tmp_path: Path) -> None:
    sha256, size = store.add_bytes(b"weights")
    own = store.path(sha256)
    own.chmod(0o644)
    own.write_bytes(b"wEights")
    os.utime(own, ns=(1, 1))
    manifest = Manifest(entries=(entry("model/w", b"weights"),))
    assert [e.sha256 for e in store.missing(manifest)] == [sha256]
    with pytest.raises(IntegrityError, match="is not in"):
        store.lay_out(manifest, tmp_path / "bundle")
    assert store.add_bytes(b"weights") == (sha256, size)
    store.lay_out(manifest, tmp_path / "bundle")
    assert (tmp_path / "bundle/model/w").read_bytes() == b"weights"


def test_a_whole_blob_is_not_read_again(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256, _ = store.add_bytes(b"weights")

    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(BlobStore, "_learn_digest", refuse)
    assert store.path(sha256).read_bytes() == b"weights"


def test_a_full_disk_leaves_nothing(store: BlobStore) -> None:
    wanted = entry("x", b"whole")

    def add() -> None:
        with store.incoming(wanted.sha256, wanted.size) as blob:
            blob._file = Path("/dev/full").open("wb")  # noqa: SIM115 - the blob closes it
            blob.write(b"whole")

    with pytest.raises(OSError, match="No space left"):
        add()
    assert not store.has(wanted.sha256)
    assert leftovers(store) == []


def test_lay_out_links_every_path(store: BlobStore, tmp_path: Path) -> None:
    for data in (b"rows", b"config"):
        store.add_bytes(data)
    manifest = Manifest(
        entries=(entry("data/train.jsonl", b"rows"), entry("model/config.json", b"config"))
    )
    store.lay_out(manifest, tmp_path / "bundle")
    store.lay_out(manifest, tmp_path / "bundle")  # again, as after a crash
    link = tmp_path / "bundle/model/config.json"
    assert link.is_symlink()
    assert link.read_bytes() == b"config"


def test_lay_out_refuses_a_path_that_leaves_the_folder(store: BlobStore, tmp_path: Path) -> None:
    store.add_bytes(b"rows")
    with pytest.raises(IntegrityError, match="not usable"):
        store.lay_out(Manifest(entries=(entry("../evil", b"rows"),)), tmp_path / "bundle")
    assert not (tmp_path / "evil").exists()


def test_a_blob_of_another_size_is_missing(store: BlobStore) -> None:
    sha256, size = store.add_bytes(b"rows")
    assert store.has(sha256, size)
    assert not store.has(sha256, size + 1)


def _hammer(root: str, original: str) -> None:
    store = BlobStore(Path(root))
    for number in range(50):
        store.add_bytes(f"blob {number}".encode())
        store.add_file(Path(original))


def test_several_processes_share_a_store(store: BlobStore, tmp_path: Path) -> None:
    original = tmp_path / "model"
    original.write_bytes(b"weights")
    spawn = multiprocessing.get_context("spawn")
    workers = [
        spawn.Process(target=_hammer, args=(str(store.root), str(original))) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    for number in range(50):
        data = f"blob {number}".encode()
        assert store.path(hashlib.sha256(data).hexdigest()).read_bytes() == data
    assert leftovers(store) == []
