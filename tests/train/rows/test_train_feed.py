import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamaforge.data.rows import Row, Text
from llamaforge.errors import DataError
from llamaforge.train.rows import feed as feed_module
from llamaforge.train.rows.feed import Feed
from llamaforge.train.rows.recent import Recent
from llamaforge.train.rows.token_cache import TokenCache
from llamaforge.train.rows.tokens import Tokens


class Numbers:
    """Rows whose text is their number."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < self._count:
            raise IndexError(index)
        return Text(line=index + 1, text=str(index))


class Counting:
    """Tokens that tell which row they are of; counts how often it was asked, and refuses row 13."""

    max_length = 64

    def __init__(self) -> None:
        self.asked: list[int] = []

    def encode(self, row: Row) -> Tokens:
        assert isinstance(row, Text)
        number = int(row.text)
        self.asked.append(number)
        if number == 13:
            raise DataError("row 14 of the dataset: unlucky")
        return expected(number)


def expected(number: int) -> Tokens:
    ids = np.arange(number, number + 3 + number % 61, dtype=np.int32)
    return Tokens(
        ids=ids,
        trained=ids % 3 == 0,
        truncated=number % 2 == 0,
        cut=number * 10**9,
        ended=number % 3 == 0,
        last_turn_only=number % 5 == 0,
    )


def same(one: Tokens | None, other: Tokens) -> bool:
    return (
        one is not None
        and one.ids.tolist() == other.ids.tolist()
        and one.ids.dtype == np.int32
        and one.trained.tolist() == other.trained.tolist()
        and one.trained.dtype == np.bool_
        and (one.truncated, one.cut, one.ended, one.last_turn_only)
        == (other.truncated, other.cut, other.ended, other.last_turn_only)
    )


def make(folder: Path | None, count: int = 100) -> tuple[Feed, Counting]:
    encoder = Counting()
    return Feed(Numbers(count), encoder, folder=folder, key="k"), encoder  # type: ignore[arg-type]


def test_a_row_is_made_once_and_kept_between_jobs(tmp_path: Path) -> None:
    first, encoder = make(tmp_path)
    assert same(first[5], expected(5))
    assert same(first[5], expected(5))
    assert encoder.asked == [5]
    first.close()
    second, encoder = make(tmp_path)
    assert same(second[5], expected(5))
    assert encoder.asked == []
    second.close()


def test_another_feed_sees_a_row_as_soon_as_it_is_made(tmp_path: Path) -> None:
    one, _ = make(tmp_path)
    two, encoder = make(tmp_path)
    assert same(one[7], expected(7))
    assert same(two[7], expected(7))
    assert same(two[8], expected(8))
    assert same(one[8], expected(8))
    assert encoder.asked == [8]
    one.close()
    two.close()


def test_without_a_folder_nothing_is_kept() -> None:
    feed, encoder = make(None)
    feed.ahead(range(10))
    assert same(feed[3], expected(3))
    assert encoder.asked == [3]
    feed.close()


def test_ahead_works_in_the_given_order_and_skips_what_it_can_not_make(tmp_path: Path) -> None:
    feed, encoder = make(tmp_path)
    done = threading.Event()

    def order() -> Iterator[int]:
        yield from (20, 13, 10, 20, 11)

    def second() -> Iterator[int]:
        yield 30
        done.set()

    feed.ahead(order())
    feed.ahead(second())
    assert done.wait(30)
    feed.close()
    assert encoder.asked[:5] == [20, 13, 10, 11, 30]
    again, encoder = make(tmp_path)
    assert same(again[11], expected(11))
    assert encoder.asked == []
    with pytest.raises(DataError, match="unlucky"):
        again[13]
    again.close()


def test_close_stops_an_endless_order(tmp_path: Path) -> None:
    feed, _ = make(tmp_path)
    started = threading.Event()

    def endless() -> Iterator[int]:
        while True:
            yield 1
            started.set()

    feed.ahead(endless())
    assert started.wait(30)
    feed.close()
    feed.close()
    assert not any(t.name == "tokens-ahead" for t in threading.enumerate())


def test_ahead_keeps_only_so_far_ahead(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(feed_module, "LOOK_AHEAD", 5)
    feed, encoder = make(tmp_path, 60)
    done = threading.Event()

    def order() -> Iterator[int]:
        yield from (n for n in range(60) if n != 13)
        done.set()

    feed.ahead(order())
    for served in range(60):
        if served != 13:
            assert same(feed[served], expected(served))
        assert max(encoder.asked) <= served + 1 + 5
    assert done.wait(30)
    feed.close()
    assert sorted(set(encoder.asked)) == [n for n in range(60) if n != 13]


def test_close_frees_a_waiting_thread(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(feed_module, "LOOK_AHEAD", 1)
    feed, encoder = make(tmp_path)
    second = threading.Event()

    def order() -> Iterator[int]:
        yield 1
        second.set()
        yield 2

    feed.ahead(order())
    assert second.wait(30)
    feed.close()
    assert encoder.asked == [1]


def test_memory_is_bounded_by_bytes() -> None:
    size = expected(0).ids.nbytes + expected(0).trained.nbytes
    recent = Recent(3 * size)
    row = expected(0)
    for number in (1, 2, 3):
        recent.put(number, row)
    recent.get(1)
    recent.put(4, row)
    assert [recent.get(n) is not None for n in (1, 2, 3, 4)] == [True, False, True, True]
    recent.put(5, expected(60))  # larger than the whole bound
    assert all(recent.get(n) is None for n in (1, 3, 4, 5))


def test_a_feed_with_a_small_memory_still_answers(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(feed_module, "RECENT_BYTES", 100)
    feed, encoder = make(tmp_path)
    for _ in range(2):
        assert all(same(feed[n], expected(n)) for n in range(100) if n != 13)
    assert len(encoder.asked) == 99
    feed.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_damaged_cache_never_gives_wrong_tokens(tmp_path_factory, data) -> None:
    folder = tmp_path_factory.mktemp("cache")
    cache = TokenCache(folder, max_length=64)
    for row in range(12):
        cache.put(row, expected(row))
    cache.close()
    path = folder / data.draw(st.sampled_from(["index", "segment-000001"]))
    content = bytearray(path.read_bytes())
    damage = data.draw(st.sampled_from(["flip", "cut", "zero", "swap"]))
    at = data.draw(st.integers(0, len(content) - 1))
    if damage == "flip":
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    elif damage == "cut":
        del content[at:]
    elif damage == "zero":
        content[at:] = bytes(len(content) - at)
    else:
        content[:] = content[at:] + content[:at]
    path.write_bytes(content)
    damaged = TokenCache(folder, max_length=64)
    for row in range(12):
        found = damaged.get(row)
        assert found is None or same(found, expected(row))
        damaged.put(row, expected(row))
        assert same(damaged.get(row), expected(row))
    damaged.close()


def test_a_damaged_row_is_made_again(tmp_path: Path) -> None:
    feed, _ = make(tmp_path)
    feed[5]
    feed.close()
    segment = tmp_path / "k" / "segment-000001"
    segment.write_bytes(segment.read_bytes()[:-1] + b"\xff")
    feed, encoder = make(tmp_path)
    assert same(feed[5], expected(5))
    assert encoder.asked == [5]
    feed.close()


def test_an_unusable_folder_is_a_remark_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("in the way")
    feed, _ = make(tmp_path)
    assert same(feed[1], expected(1))
    assert "tokens are not kept in" in str(feed.problem)
    feed.ahead(range(5))
    feed.close()


def test_a_full_disk_is_a_remark_and_no_error(tmp_path: Path, monkeypatch) -> None:
    feed, _ = make(tmp_path)
    feed[1]
    monkeypatch.setattr(os, "pwrite", lambda *_: 1)
    assert same(feed[2], expected(2))
    assert "No space left" in str(feed.problem)
    assert same(feed[3], expected(3))
    feed.close()


def _read_all(folder: Path, seed: int, wrong, ready) -> None:
    feed, _ = make(folder, 400)
    ready.wait()
    for number in np.random.default_rng(seed).permutation(400).tolist():
        if number != 13 and not same(feed[number], expected(number)):
            wrong.value += 1
    feed.close()


def _read_for_ever(folder: Path, ready) -> None:
    ready.wait()
    while True:
        feed, _ = make(folder, 400)
        for number in range(399, -1, -1):
            if number != 13:
                feed[number]
        feed.close()


def test_processes_share_a_folder_and_one_is_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    wrong, ready = context.Value("i", 0), context.Barrier(4)
    readers = [
        context.Process(target=_read_all, args=(tmp_path, seed, wrong, ready)) for seed in range(3)
    ]
    victim = context.Process(target=_read_for_ever, args=(tmp_path, ready))
    for process in (*readers, victim):
        process.start()
    readers[0].join(60)
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    for process in (*readers, victim):
        process.join(60)
    assert [process.exitcode for process in readers] == [0, 0, 0]
    assert wrong.value == 0
    feed, encoder = make(tmp_path, 400)
    assert all(same(feed[n], expected(n)) for n in range(400) if n != 13)
    assert encoder.asked == []
    feed.close()
