"""Uploads that break and go on; what lies about itself is refused."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.bundle import pieces as pieces_module
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import IntegrityError
from llamaforge.wire import transfer
from llamaforge.wire.transfer import into_store, range_headers, range_of
from swarm_rig import data_of

PIECE = 10_000
DATA = data_of(95_000)
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces_module, "PIECE", PIECE)
    monkeypatch.setattr(transfer, "SMALL", PIECE)
    monkeypatch.setattr(transfer, "LOCKED_SECONDS", 0.3)


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "store")


async def stream(data: bytes, *, chunk: int = 3000, breaks: bool = False) -> AsyncIterator[bytes]:
    for start in range(0, len(data), chunk):
        yield data[start : start + chunk]
    if breaks:
        raise ConnectionResetError("gone")


async def test_an_upload_that_broke_goes_on(store: BlobStore) -> None:
    assert store.stands(DIGEST) == 0
    with pytest.raises(ConnectionResetError):
        await into_store(store, DIGEST, len(DATA), stream(DATA[:42_000], breaks=True))
    assert store.stands(DIGEST) == 40_000
    rest = stream(DATA[40_000:61_000], breaks=True)
    with pytest.raises(ConnectionResetError):
        await into_store(store, DIGEST, len(DATA), rest, start=40_000)
    assert store.stands(DIGEST) == 60_000
    await into_store(store, DIGEST, len(DATA), stream(DATA[60_000:]), start=60_000)
    assert store.path(DIGEST).read_bytes() == DATA
    assert store.stands(DIGEST) == len(DATA)


async def test_an_upload_may_start_anew(store: BlobStore) -> None:
    with pytest.raises(ConnectionResetError):
        await into_store(store, DIGEST, len(DATA), stream(b"x" * 42_000, breaks=True))
    await into_store(store, DIGEST, len(DATA), stream(DATA))
    assert store.path(DIGEST).read_bytes() == DATA


async def test_wrong_beginnings_are_found_at_the_end_and_forgotten(store: BlobStore) -> None:
    with pytest.raises(ConnectionResetError):
        await into_store(store, DIGEST, len(DATA), stream(b"x" * 42_000, breaks=True))
    with pytest.raises(IntegrityError, match="arrived damaged"):
        await into_store(store, DIGEST, len(DATA), stream(DATA[40_000:]), start=40_000)
    assert store.stands(DIGEST) == 0
    assert not store.has(DIGEST)


@pytest.mark.parametrize("start", [10_000, 39_999, 50_000, 94_999])
async def test_an_upload_that_leaves_a_gap_is_refused(store: BlobStore, start: int) -> None:
    with pytest.raises(ConnectionResetError):
        await into_store(store, DIGEST, len(DATA), stream(DATA[:42_000], breaks=True))
    with pytest.raises(IntegrityError, match="40000 stand"):
        await into_store(store, DIGEST, len(DATA), stream(DATA[start:]), start=start)
    assert store.stands(DIGEST) == 40_000, "what stands is not lost by it"


@pytest.mark.parametrize("size", [95_000, 500])
async def test_an_upload_that_is_too_long_is_refused(store: BlobStore, size: int) -> None:
    digest = hashlib.sha256(DATA[:size]).hexdigest()
    with pytest.raises(IntegrityError, match="longer than"):
        await into_store(store, digest, size, stream(DATA[:size] + b"x" * 7000))
    assert not store.has(digest)


async def test_an_upload_that_ends_early_is_no_blob(store: BlobStore) -> None:
    with pytest.raises(ConnectionError, match="94999 of 95000"):
        await into_store(store, DIGEST, len(DATA), stream(DATA[:-1]))
    assert store.stands(DIGEST) == 90_000


async def test_two_uploads_of_the_same_at_once_both_arrive(store: BlobStore) -> None:
    await asyncio.gather(
        into_store(store, DIGEST, len(DATA), stream(DATA)),
        into_store(store, DIGEST, len(DATA), stream(DATA)),
    )
    assert store.path(DIGEST).read_bytes() == DATA
    assert list((store.root / "incoming").iterdir()) == []


@pytest.mark.parametrize("digest", ["", "abc", "../" * 21 + "x", "A" * 64, "0" * 63 + "/"])
async def test_what_is_no_digest_becomes_no_path(store: BlobStore, digest: str) -> None:
    with pytest.raises(IntegrityError):
        await into_store(store, digest, len(DATA), stream(DATA))
    with pytest.raises(IntegrityError):
        store.stands(digest)
    assert not store.root.exists() or list(store.root.rglob("*.part")) == []


@given(start=st.integers(0, 10**9), more=st.integers(1, 10**9))
def test_ranges_mean_what_was_meant(start: int, more: int) -> None:
    headers = range_headers(start, start + more)
    length, said = int(headers["Content-Length"]), headers.get("Content-Range")
    assert range_of(length, said) == (start, start + more)


@pytest.mark.parametrize(
    ("length", "said"),
    [
        (10, "bytes 0-9"),
        (10, "bytes 0-9/*"),
        (10, "bytes 5-9/10"),
        (5, "bytes 5-9/11"),
        (5, "bytes 9-5/10"),
        (5, "bytes -5-9/10"),
        (5, "rows 5-9/10"),
        (5, "bytes 5-9/10, 1-2/3"),
        (0, "bytes 10-9/10"),
        (5, "bytes 5-" + "9" * 40 + "/10"),
        (5, ""),
    ],
)
def test_wrong_ranges_are_refused(length: int, said: str) -> None:
    with pytest.raises(IntegrityError):
        range_of(length, said)


@given(length=st.integers(0, 10**6), said=st.text(max_size=60))
def test_no_range_is_a_crash(length: int, said: str) -> None:
    try:
        start, size = range_of(length, said)
    except IntegrityError:
        return
    assert size - start == length
