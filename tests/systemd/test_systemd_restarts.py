"""Pauses that grow from crash to crash and never become an end."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from llamaforge.systemd.restarts import FREE, LONGEST, WINDOW, Restarts, pause


@given(st.integers(0, 10_000))
def test_pauses_grow_to_a_limit(crashes: int) -> None:
    assert 0 <= pause(crashes) <= pause(crashes + 1) <= LONGEST
    assert (pause(crashes) == 0) == (crashes <= FREE)


class Machine:
    def __init__(self, folder: Path) -> None:
        self.now = 1000.0
        self.folder = folder

    def start(self) -> Restarts:
        return Restarts(self.folder, clock=lambda: self.now)


def test_twenty_crashes_in_a_row_still_end_in_work(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    pauses = []
    for _ in range(20):
        wait = machine.start().begin()
        pauses.append(wait)
        machine.now += wait + 0.1
    assert pauses[:3] == [0, 0, 0]
    assert pauses[3:] == sorted(pauses[3:]), pauses
    assert 0 < pauses[-1] <= LONGEST


def test_time_that_systemd_has_waited_counts(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    for _ in range(6):
        machine.start().begin()
    machine.now += 3 * LONGEST
    assert machine.start().begin() == 0


def test_an_orderly_end_and_old_crashes_are_forgotten(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    for _ in range(6):
        last = machine.start()
        last.begin()
    assert last.crashes == 5
    last.forget()
    assert machine.start().begin() == 0
    for _ in range(6):
        machine.start().begin()
    machine.now += WINDOW + LONGEST
    again = machine.start()
    assert again.begin() == 0
    assert again.crashes == 0


def test_a_torn_file_or_a_missing_folder_costs_no_start(tmp_path: Path) -> None:
    (tmp_path / "starts.json").write_text("[1.0, ")
    assert Restarts(tmp_path).begin() == 0
    assert Restarts(tmp_path / "gone").begin() == 0
    assert Restarts(None).begin() == 0


def test_what_a_rank_left_in_its_place_costs_no_start(tmp_path: Path) -> None:
    (tmp_path / "starts.json").mkdir()
    (tmp_path / "starts.new").mkdir()
    restarts = Restarts(tmp_path)
    assert restarts.begin() == 0
    restarts.forget()
    for path in tmp_path.iterdir():
        path.rmdir()
    os.mkfifo(tmp_path / "starts.json")
    assert Restarts(tmp_path).begin() == 0
