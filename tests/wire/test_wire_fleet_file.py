"""The fleet file: private, whole, and recognised when it is stale."""

from __future__ import annotations

import fcntl
import stat
from pathlib import Path

import pytest

from llamaforge.errors import FleetError, UserError
from llamaforge.wire import fleet_file
from llamaforge.wire.fleet_file import FleetFile, Lock, lock_of

FLEET = FleetFile(host="127.0.0.1", port=29400, pid=1, socket="/x/control.sock")


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


def test_a_state_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"state folder .*/file/state can't be written"):
        Lock(tmp_path / "file" / "state" / "worker.lock").take()


def test_it_holds_no_secret_and_a_services_group_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    fleet_file.write(path, FLEET, mode=0o640)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_who_may_only_read_the_lock_sees_whether_it_is_held(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "x.lock")
    assert lock.take()
    lock.path.chmod(0o440)
    assert Lock(lock.path).taken()


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Where a fleet is looked for, by who put it there."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(fleet_file, "SERVICE", tmp_path / "run" / "fleet.json")
    monkeypatch.delenv("LLAMAFORGE_FLEET", raising=False)
    return {
        "named": tmp_path / "named.json",
        "variable": tmp_path / "variable.json",
        "own": tmp_path / "state" / "llamaforge" / "fleet.json",
        "service": tmp_path / "run" / "fleet.json",
        "login": tmp_path / "config" / "llamaforge" / "fleet.json",
    }


def test_a_fleet_is_looked_for_from_the_nearest_on(tmp_path: Path, places: dict[str, Path]) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    assert fleet_file.search(environ=environ) is None
    for port, who in enumerate(reversed(places), 1):
        fleet_file.write(places[who], FleetFile(host=who, port=port))
        if who == "variable":
            environ["LLAMAFORGE_FLEET"] = str(places[who])
        named = places[who] if who == "named" else None
        found = fleet_file.search(named, environ)
        assert found is not None
        assert found.host == who


def test_a_fleet_that_was_named_and_is_not_there_is_not_replaced(places: dict[str, Path]) -> None:
    fleet_file.write(places["service"], FLEET)
    with pytest.raises(UserError, match=r"--fleet is .*named.json.*there is no such file"):
        fleet_file.search(places["named"], {})
    with pytest.raises(UserError, match=r"LLAMAFORGE_FLEET is .*variable.json"):
        fleet_file.search(environ={"LLAMAFORGE_FLEET": str(places["variable"])})


def test_the_fleet_file_of_a_coordinator_that_has_ended_says_so(places: dict[str, Path]) -> None:
    fleet_file.write(places["named"], FLEET)
    places["named"].with_suffix(".lock").touch()
    with pytest.raises(FleetError, match="its coordinator has ended"):
        fleet_file.search(places["named"], {})


@pytest.mark.parametrize("path", ["", "/dev", "/dev/zero"])
def test_what_is_no_fleet_file_is_said_and_not_read_without_end(path: str) -> None:
    with pytest.raises(FleetError):
        fleet_file.search(Path(path), {})


def test_a_service_that_this_user_may_not_see_is_passed_over(
    tmp_path: Path, places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet_file.write(places["login"], FLEET)
    find = fleet_file.find

    def closed(path: Path) -> FleetFile | None:
        if path == places["service"]:
            raise PermissionError
        return find(path)

    monkeypatch.setattr(fleet_file, "find", closed)
    assert fleet_file.search(environ={"XDG_CONFIG_HOME": str(tmp_path / "config")}) == FLEET
