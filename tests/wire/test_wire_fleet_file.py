"""The fleet file: private, whole, and recognised when it is stale."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import pytest

from llamaforge.errors import FleetError, UserError
from llamaforge.wire import fleet_file
from llamaforge.wire.auth import allowed, header, keep_token, read_token
from llamaforge.wire.fleet_file import FleetFile, Lock, lock_of

FLEET = FleetFile(host="127.0.0.1", port=29400, token="secret", pid=1)


def test_only_the_user_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "fleet.json"
    fleet_file.write(path, FLEET)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert fleet_file.read(path) == FLEET
    assert [f.name for f in path.parent.iterdir()] == ["fleet.json"]


def test_a_held_lock_means_that_the_fleet_runs(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    fleet_file.write(path, FLEET)
    lock = lock_of(path)
    assert lock.take()
    assert fleet_file.find(path) == FLEET
    lock.free()
    assert fleet_file.find(path) is None


def test_no_file_no_fleet(tmp_path: Path) -> None:
    assert fleet_file.find(tmp_path / "fleet.json") is None


def test_a_file_from_another_machine_has_no_lock_and_counts(tmp_path: Path) -> None:
    path = tmp_path / "copied.json"
    fleet_file.write(path, FLEET)
    assert fleet_file.find(path) == FLEET


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    path.write_text("{")
    with pytest.raises(FleetError, match=r"fleet\.json can't be read"):
        fleet_file.read(path)


def test_two_who_ask_at_once_do_not_take_each_other_for_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with path.open("w") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        assert not Lock(path).taken()
        fcntl.flock(asking, fcntl.LOCK_EX)
        assert Lock(path).taken()


def test_a_lock_is_taken_once(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "x.lock"), Lock(tmp_path / "x.lock")
    assert first.take()
    assert second.taken()
    assert not second.take(patience=0)
    first.free()
    assert not second.taken()
    assert second.take(patience=0)


def test_an_ipv6_address_is_bracketed_in_the_url() -> None:
    fleet = FleetFile(host="::1", port=1, token="t", pid=1)
    assert fleet.url == "http://[::1]:1"


def test_the_token_is_kept_over_restarts_and_private(tmp_path: Path) -> None:
    path = tmp_path / "state" / "token"
    token = keep_token(path)
    assert len(token) >= 32
    assert keep_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_token_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("secret\n")
    path.chmod(0o644)
    assert keep_token(path) == "secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_disk_that_refuses_the_token_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(OSError, match="No space left"):
        keep_token(tmp_path / "token")
    assert list(tmp_path.iterdir()) == []


def test_a_state_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"state folder .*/file/state can't be written"):
        Lock(tmp_path / "file" / "state" / "worker.lock").take()


def test_an_empty_token_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    with pytest.raises(FleetError, match="is empty"):
        read_token(tmp_path / "token")


def test_only_the_token_opens() -> None:
    assert allowed(header("secret"), "secret")
    for wrong in ({}, header("secre"), header("secrets"), {"Authorization": "secret"}):
        assert not allowed(wrong, "secret")
    assert not allowed({"Authorization": "Bearer \udcff"}, "secret")
