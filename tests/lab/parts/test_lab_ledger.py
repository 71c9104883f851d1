"""The ledger: what is noted is found again, and a process is more than a pid."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lab import LabError, ledger, teardown
from lab.ledger import Ledger, Process, claiming, forget_folder, ledgers


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ledger, "FOLDER", tmp_path / "ledgers")
    return tmp_path / "ledgers"


def me() -> Process:
    found = Process.of(os.getpid())
    assert found is not None
    return found


def test_entries_come_back_in_order_and_once(folder: Path):
    with claiming():
        mine = Ledger("lf1")
        mine.begin(me())
    mine.note("folder", "/a b")
    mine.note("link", "lf1")
    mine.note("folder", "/a b")
    assert mine.entries() == [("folder", "/a b"), ("link", "lf1")]
    assert mine.owner() == me()
    assert [one.name for one in ledgers()] == ["lf1"]


def test_half_a_line_of_a_killed_writer_is_ignored(folder: Path):
    folder.mkdir()
    Ledger("lf1").begin(me())
    with Ledger("lf1").path.open("a") as file:
        file.write('{"kind": "link", "name": "lf')
    assert Ledger("lf1").entries() == []
    assert Ledger("lf1").owner() == me()


def test_a_name_is_taken_once(folder: Path):
    folder.mkdir()
    Ledger("lf1").begin(me())
    with pytest.raises(FileExistsError):
        Ledger("lf1").begin(me())


def test_a_process_is_told_from_another_with_its_number():
    child = subprocess.Popen(["sleep", "100"])
    found = Process.of(child.pid)
    assert found is not None
    assert found.alive
    assert not Process(found.pid, found.start + 1).alive
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not found.alive, "a zombie does nothing any more"
    child.wait()
    assert Process.of(child.pid) is None


def test_taking_down_goes_backwards_and_removes_ledger_and_folder(folder: Path, tmp_path: Path):
    folder.mkdir()
    mine = Ledger("lf1")
    mine.begin(me())
    (tmp_path / "outer/inner").mkdir(parents=True)
    mine.note("empty-folder", tmp_path / "outer")
    mine.note("folder", tmp_path / "outer/inner")
    mine.note("file", tmp_path / "never made")
    teardown.take_down(mine)
    forget_folder()
    assert not (tmp_path / "outer").exists()
    assert not folder.exists()
    teardown.take_down(mine)


def test_what_can_not_be_undone_is_named_and_stays_written(folder: Path, tmp_path: Path):
    folder.mkdir()
    mine = Ledger("lf1")
    mine.begin(me())
    (tmp_path / "a folder").mkdir()
    mine.note("file", tmp_path / "a folder")
    with pytest.raises(LabError, match=r"lab lf1 is not gone; .*clean`:\n  file .*a folder"):
        teardown.take_down(mine)
    assert mine.entries() != []


def test_a_dead_lab_that_resists_does_not_keep_the_others(folder: Path, tmp_path: Path):
    folder.mkdir()
    for name in ("lf1", "lf2"):
        Ledger(name).begin(Process(me().pid, me().start - 1))
    Ledger("lf1").note("file", tmp_path)
    with pytest.raises(LabError, match="lab lf1 is not gone"):
        teardown.clean()
    assert [one.name for one in ledgers()] == ["lf1"]


def test_labs_of_dead_owners_are_cleaned_and_others_left(folder: Path):
    folder.mkdir()
    Ledger("lf1").begin(me())
    Ledger("lf2").begin(Process(me().pid, me().start - 1))
    assert teardown.clean() == ["lf2"]
    assert [one.name for one in ledgers()] == ["lf1"]


def test_a_janitor_leaves_the_next_lab_of_the_same_name_alone(folder: Path, tmp_path: Path):
    folder.mkdir()
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    Ledger("lf1").begin(me())
    Ledger("lf1").note("folder", theirs)
    late = Process(me().pid, me().start - 1)  # the owner of the lab that had this name before
    teardown.take_down(Ledger("lf1"), late)
    assert theirs.is_dir()
    assert [one.name for one in ledgers()] == ["lf1"]
    teardown.take_down(Ledger("lf1"), me())
    assert not theirs.exists()
    assert ledgers() == []
