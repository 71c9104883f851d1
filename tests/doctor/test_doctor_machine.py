"""The real machine: commands with a limit, and paths that may hang."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from llamaforge.doctor.machine import CantLook, Machine


def test_a_command_that_does_not_end_is_killed_with_its_children() -> None:
    begun = time.monotonic()
    done = Machine().run("sh", "-c", "sleep 60 & sleep 60; echo never", seconds=0.3)
    assert done.timed_out
    assert time.monotonic() - begun < 5


def test_a_command_that_is_missing_or_fails() -> None:
    machine = Machine()
    assert machine.run("no-such-command-of-ours").code == 127
    with pytest.raises(CantLook, match="no-such-command-of-ours is not installed"):
        machine.need("no-such-command-of-ours")
    with pytest.raises(CantLook, match="broken here"):
        machine.need("sh", "-c", "echo broken here >&2; exit 3")


def test_what_a_path_is(tmp_path: Path) -> None:
    machine = Machine()
    file = tmp_path / "a b"
    file.write_text("12345")
    file.chmod(0o640)
    status = machine.status(str(file))
    assert status is not None
    assert (status.kind, status.mode, status.size) == ("regular file", 0o640, 5)
    assert machine.status(str(tmp_path / "none")) is None


def test_room_in_a_file_system(tmp_path: Path) -> None:
    space = Machine().space(str(tmp_path))
    assert space is not None
    assert 0 <= space.free <= space.total
    assert Machine().space(str(tmp_path / "none")) is None


def test_files_below_another_root(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "hostname").write_text("box\n")
    machine = Machine(tmp_path)
    assert machine.read("/etc/hostname") == "box\n"
    assert machine.read("/etc/none") is None
    assert machine.listed("/etc/*") == ["/etc/hostname"]


def test_the_name_of_loopback() -> None:
    assert "127.0.0.1" in Machine().addresses("localhost")
