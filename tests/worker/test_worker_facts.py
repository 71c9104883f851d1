"""What a worker says about its node, and who has it."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from llamaforge.worker import facts
from llamaforge.worker.busy import BusyLock


def test_the_identity_stays(tmp_path: Path) -> None:
    first = facts.identity(tmp_path / "state")
    assert len(first) == 32
    assert facts.identity(tmp_path / "state") == first
    assert facts.identity(tmp_path / "another") != first


def test_the_identity_of_an_earlier_version_is_kept_and_makes_room(tmp_path: Path) -> None:
    (tmp_path / "identity").write_text("abc\n")
    assert facts.identity(tmp_path) == "abc"
    (tmp_path / "identity").mkdir()
    assert facts.identity(tmp_path) == "abc"


def test_gpus_are_those_that_the_driver_knows(tmp_path: Path) -> None:
    assert facts.gpus(tmp_path) == 0
    for bus in ("0000:01:00.0", "0000:02:00.0"):
        folder = tmp_path / "driver" / "nvidia" / "gpus" / bus
        folder.mkdir(parents=True)
        (folder / "information").write_text("Model: \t NVIDIA H200\n")
    assert facts.gpus(tmp_path) == 2


def test_versions_are_what_metadata_says() -> None:
    versions = facts.versions()
    assert versions["torch"] == metadata.version("torch")
    assert versions["python"].startswith("3.")


def test_a_missing_package_has_no_version(tmp_path: Path) -> None:
    assert facts.installed("torch", [str(tmp_path), ""]) == ""


def test_one_thing_at_a_time() -> None:
    busy = BusyLock()
    seen: list[str | None] = []
    busy.on_change(lambda: seen.append(busy.holder))
    with busy.holding("classic job") as mine:
        assert mine
        assert not busy.take("job x")
        with busy.holding("another") as second:
            assert not second
        assert busy.holder == "classic job"
    assert busy.take("job x")
    busy.free()
    assert seen == ["classic job", None, "job x", None]
