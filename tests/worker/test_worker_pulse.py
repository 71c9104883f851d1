"""Movement is told from stillness, and what takes its time from what is stuck."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamaforge.spec.beat import Phase, Seen, pack
from llamaforge.worker import pulse
from llamaforge.worker.pulse import PATIENCE, Pulse

SECOND = 10**9


class World:
    """A rank's file, and the time."""

    def __init__(self, folder: Path) -> None:
        self.now = 0
        self.folder = folder
        self.pulse = Pulse(folder, lambda: self.now)

    def tell(self, phase: Phase = Phase.SLICE, *, waits: bool = False, rank: int = 0) -> None:
        word = Seen(step=3, phase=phase, waits=waits, at=self.now)
        (self.folder / f"rank-{rank}.beat").write_bytes(pack(word))

    def moved(self, *ranks: int) -> bool:
        return self.pulse.moved(dict.fromkeys(ranks or (0,), os.getpid()))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_rank_without_a_word_does_not_move(world: World) -> None:
    assert not world.moved()


def test_each_word_counts_once(world: World) -> None:
    world.tell()
    assert [world.moved(), world.moved()] == [True, False]
    world.now += SECOND
    world.tell()
    assert [world.moved(), world.moved()] == [True, False]


def test_one_that_moves_is_enough(world: World) -> None:
    world.tell(rank=0)
    world.tell(rank=1)
    assert world.moved(0, 1)
    world.now += SECOND
    world.tell(rank=1)
    assert world.moved(0, 1)
    assert not world.moved(0, 1)


def test_saving_may_take_its_time_but_not_for_ever(world: World) -> None:
    world.tell(Phase.SAVES)
    assert world.moved()
    world.now += 100 * SECOND
    assert world.moved()
    world.now = int((PATIENCE[Phase.SAVES] + 1) * SECOND)
    assert not world.moved()


def test_waiting_for_others_and_being_stopped_are_no_movement(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.tell(Phase.FINISHES, waits=True)
    world.moved()
    assert not world.moved()
    world.tell(Phase.SAVES)
    assert world.moved()
    monkeypatch.setattr(pulse, "process_state", lambda _: "T")
    assert not world.moved()
