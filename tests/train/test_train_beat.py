"""A rank's pulse: what its worker reads is what it wrote, and writing it costs nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.spec.beat import BYTES, Phase, Seen, pack, parse
from llamaforge.train import beat

LONGEST = 2e-6
"""Seconds that one word may cost."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "rank-3.beat"
    beat.keep(path)
    return path


def seen(path: Path) -> Seen:
    found = parse(path.read_bytes())
    assert found is not None
    return found


def test_what_is_written_is_read(path: Path) -> None:
    before = time.monotonic_ns()
    beat.committed(7)
    beat.now(Phase.SLICE)
    first = seen(path)
    assert (first.step, first.phase, first.waits) == (7, Phase.SLICE, False)
    assert before <= first.at <= time.monotonic_ns()
    with beat.waiting():
        inside = seen(path)
    after = seen(path)
    assert (inside.waits, after.waits) == (True, False)
    assert first.at <= inside.at <= after.at
    assert (inside.phase, beat.doing()) == (Phase.SLICE, Phase.SLICE)


def test_waiting_ends_with_an_error_too(path: Path) -> None:
    with pytest.raises(ValueError, match="x"), beat.waiting():
        raise ValueError("x")
    assert not seen(path).waits


def test_what_was_told_before_there_was_a_file_stands_in_it(tmp_path: Path) -> None:
    beat.committed(12)
    beat.keep(tmp_path / "later.beat")
    assert seen(tmp_path / "later.beat").step == 12
    beat.committed(0)


def test_a_word_costs_next_to_nothing(path: Path) -> None:
    def once() -> float:
        begin = time.perf_counter()
        for _ in range(2_000):
            beat.now(Phase.SLICE)
        return (time.perf_counter() - begin) / 2_000

    assert min(once() for _ in range(5)) < LONGEST


@given(st.binary(max_size=2 * BYTES))
def test_the_word_of_a_stranger_is_understood_or_refused(raw: bytes) -> None:
    found = parse(raw)
    assert found is None or pack(found)[:16] == raw[:16]


def test_every_phase_has_words() -> None:
    assert all(phase.words for phase in Phase)
