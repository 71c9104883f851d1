"""A blob in pieces: any order, any break, a full disk; wrong bytes never become a blob."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.bundle.pieces import PieceFile, is_locked, places, standing
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import IntegrityError
from small_disk import small_disk

PIECE = 1000
DATA = random.Random(1).randbytes(4500)
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "store")


def begin(store: BlobStore, size: int = len(DATA)) -> PieceFile:
    pieces = store.pieces(DIGEST, size, piece=PIECE)
    assert pieces is not None
    return pieces


def put(pieces: PieceFile, *numbers: int, data: bytes = DATA) -> None:
    for number in numbers:
        start, length = pieces.span(number)
        pieces.write(start, data[start : start + length])
        pieces.mark(number)


@given(order=st.permutations(range(5)), breaks=st.sets(st.integers(0, 4)))
def test_any_order_and_any_breaks_give_the_blob(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], breaks: set[int]
) -> None:
    store = BlobStore(tmp_path_factory.mktemp("store"))
    pieces = begin(store)
    for done, number in enumerate(order):
        if done in breaks:
            pieces.close()
            pieces = begin(store)
        assert set(pieces.missing) == set(order[done:])
        put(pieces, number)
    path = pieces.commit()
    assert path.read_bytes() == DATA == store.path(DIGEST).read_bytes()
    assert path.stat().st_mode & 0o777 == 0o444
    assert list((store.root / "incoming").iterdir()) == []


def test_a_piece_that_was_written_but_not_marked_does_not_stand(store: BlobStore) -> None:
    pieces = begin(store)
    put(pieces, 0)
    pieces.write(1000, DATA[1000:2000])
    pieces.close()
    assert standing(store, DIGEST) == 1000
    again = begin(store)
    assert again.missing == [1, 2, 3, 4]
    assert again.stands == 1000
    again.close()


def test_wrong_bytes_are_refused_and_forgotten(store: BlobStore) -> None:
    pieces = begin(store)
    put(pieces, 0, 1, 2, 3, 4, data=b"x" + DATA[1:])
    with pytest.raises(IntegrityError, match="arrived damaged"):
        pieces.commit()
    assert not store.has(DIGEST)
    assert begin(store).missing == [0, 1, 2, 3, 4]


def test_a_blob_with_a_gap_is_refused(store: BlobStore) -> None:
    pieces = begin(store)
    put(pieces, 0, 2, 3, 4)
    with pytest.raises(IntegrityError):
        pieces.commit()


@pytest.mark.parametrize("offset", [-1, 4000, 10**12])
def test_bytes_outside_the_blob_are_refused(store: BlobStore, offset: int) -> None:
    pieces = begin(store)
    with pytest.raises(IntegrityError, match="longer than"):
        pieces.write(offset, DATA[:501])
    pieces.close()


def test_what_stands_is_not_written_again(store: BlobStore) -> None:
    pieces = begin(store)
    put(pieces, 1)
    for offset in (500, 1000, 1999):
        with pytest.raises(IntegrityError, match="stand already"):
            pieces.write(offset, b"x" * 600)
    pieces.close()


def test_another_size_starts_anew(store: BlobStore) -> None:
    pieces = begin(store)
    put(pieces, 0, 1)
    pieces.close()
    other = begin(store, 4400)
    assert other.missing == [0, 1, 2, 3, 4]
    other.close()


@pytest.mark.parametrize("note", [b"", b"nonsense", b"pieces 1 4500 1000\n+", b"\0" * 100])
def test_a_damaged_note_starts_anew(store: BlobStore, note: bytes) -> None:
    pieces = begin(store)
    put(pieces, 0)
    pieces.close()
    places(store, DIGEST)[1].write_bytes(note)
    again = begin(store)
    assert again.missing == [0, 1, 2, 3, 4]
    again.close()


def test_a_note_without_its_bytes_is_not_believed(store: BlobStore) -> None:
    pieces = begin(store)
    put(pieces, 0, 1, 2)
    pieces.close()
    places(store, DIGEST)[0].unlink()
    again = begin(store)
    assert again.missing == [0, 1, 2, 3, 4]
    again.close()


def test_one_at_a_time(store: BlobStore) -> None:
    first = begin(store)
    assert store.pieces(DIGEST, len(DATA), piece=PIECE) is None
    assert is_locked(places(store, DIGEST)[0])
    first.close()
    assert not is_locked(places(store, DIGEST)[0])
    begin(store).close()


def test_readers_wait_for_their_pieces(store: BlobStore) -> None:
    pieces = begin(store)
    assert not pieces.wait(0, 1500, 0.0)
    told: list[bool] = []
    reader = threading.Thread(target=lambda: told.append(pieces.wait(500, 1500, 20)))
    reader.start()
    put(pieces, 1)
    put(pieces, 0)
    reader.join()
    assert told == [True]
    file = pieces.open()
    pieces.close()
    assert file is not None
    assert os.pread(file, 100, 500) == DATA[500:600], "a reader's file outlives the fetch"
    os.close(file)
    assert pieces.open() is None
    assert not pieces.wait(2000, 10, 20), "a fetch that has ended brings nothing more"


def test_a_fetch_that_is_ended_under_a_writing_thread_writes_into_no_other_file(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = begin(store)
    number = pieces._file
    writing, go_on = threading.Event(), threading.Event()
    write = os.pwrite

    def slowly(file: int, data: bytes, offset: int) -> int:
        writing.set()
        assert go_on.wait(10)
        return write(file, data, offset)

    monkeypatch.setattr("llamaforge.bundle.pieces.os.pwrite", slowly)
    writer = threading.Thread(target=pieces.write, args=(0, DATA[:1000]))
    writer.start()
    assert writing.wait(10)
    pieces.close()
    assert os.fstat(number).st_ino == places(store, DIGEST)[0].stat().st_ino, "not closed yet"
    go_on.set()
    writer.join()
    assert not is_locked(places(store, DIGEST)[0]), "closed by its last user"
    with pytest.raises(OSError, match="the fetch is over"):
        pieces.write(0, b"x")


def test_a_killed_fetch_leaves_what_stood_and_no_lock(store: BlobStore) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from llamaforge.bundle.store import BlobStore\n"
        "p = BlobStore(Path(sys.argv[1])).pieces(sys.argv[2], 4500, piece=1000)\n"
        "p.write(0, bytes.fromhex(sys.argv[3])); p.mark(0); print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    arguments = [str(store.root), DIGEST, DATA[:1000].hex()]
    child = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    assert store.pieces(DIGEST, 4500, piece=1000) is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    pieces = begin(store)
    assert pieces.missing == [1, 2, 3, 4]
    put(pieces, 1, 2, 3, 4)
    assert pieces.commit().read_bytes() == DATA


# ── a full disk ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", megabytes=1) as folder:
        yield folder


def test_a_full_disk_is_known_before_a_byte_comes(disk: Path) -> None:
    store = BlobStore(disk / "store")
    with pytest.raises(OSError, match="No space left") as full:
        store.pieces("ab" * 32, 2 << 20)
    assert full.value.errno == errno.ENOSPC
    assert list((store.root / "incoming").iterdir()) == []
    assert store.add_bytes(b"small")[1] == 5, "nothing is taken by what did not fit"


def test_what_has_its_room_arrives_on_a_disk_that_others_fill(disk: Path) -> None:
    store = BlobStore(disk / "store")
    data = random.Random(2).randbytes(500_000)
    pieces = store.pieces(hashlib.sha256(data).hexdigest(), len(data), piece=100_000)
    assert pieces is not None
    with pytest.raises(OSError, match="No space left"):
        (disk / "other").write_bytes(b"x" * (1 << 20))
    for number in range(pieces.count):
        start, length = pieces.span(number)
        pieces.write(start, data[start : start + length])
        pieces.mark(number)
    (disk / "other").unlink()
    assert pieces.commit().read_bytes() == data


def test_a_disk_that_refuses_keeps_what_stands(store: BlobStore) -> None:
    pieces = begin(store)
    put(pieces, 0)
    pieces.close()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        limited = begin(store)
        put(limited, 1)
        with pytest.raises(OSError, match="File too large"):
            put(limited, 2)
        limited.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    again = begin(store)
    assert again.missing == [2, 3, 4]
    put(again, 2, 3, 4)
    assert again.commit().read_bytes() == DATA
