"""What is missing is named, with what to do."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest

from llamaforge.spec.fleet import WorkerSettings
from llamaforge.worker import self_check
from llamaforge.worker.self_check import look, mount_of


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    return WorkerSettings(
        name="n", state_dir=str(tmp_path / "state"), cache_dir=str(tmp_path / "cache")
    )


async def test_a_fit_machine_has_no_trouble(settings: WorkerSettings, tmp_path: Path) -> None:
    settings = msgspec.structs.replace(settings, hf_home=str(tmp_path / "hf"))
    assert await look(settings) is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "hf", "state"]
    assert list((tmp_path / "state").iterdir()) == []


async def test_a_folder_that_is_a_file_is_named(settings: WorkerSettings, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    trouble = await look(settings)
    assert trouble is not None
    assert str(tmp_path / "cache") in trouble.text
    assert "LLAMAFORGE_CACHE_DIR" in trouble.hint
    assert not trouble.final


async def test_a_missing_mount_is_named(settings: WorkerSettings) -> None:
    trouble = await look(msgspec.structs.replace(settings, hf_home="/proc/nothing/here"))
    assert trouble is not None
    assert trouble.text == "HF_HOME=/proc/nothing/here is not there"


async def test_an_installation_without_torch_is_final(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_check.facts, "installed", lambda *_: "")
    trouble = await look(settings)
    assert trouble is not None
    assert trouble.final
    assert "torch is not installed" in trouble.text


async def test_a_clock_before_its_time_is_named(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_check.time, "time", lambda: 0.0)
    trouble = await look(settings)
    assert trouble is not None
    assert "1970" in trouble.text or "the clock" in trouble.text


async def test_a_look_that_hangs_is_the_trouble(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = threading.Event()
    monkeypatch.setattr(self_check, "HANGS_SECONDS", 0.05)
    monkeypatch.setattr(self_check, "_folder", lambda *_: never.wait())
    trouble = await look(settings)
    never.set()
    assert trouble is not None
    assert settings.state_dir in trouble.text
    assert "does not answer" in trouble.text


async def test_looks_that_hang_are_waited_for_and_not_piled_up(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, calls = threading.Event(), []

    def waits(*folder: str) -> None:
        calls.append(folder)
        answers.wait(30)

    monkeypatch.setattr(self_check, "HANGS_SECONDS", 0.05)
    monkeypatch.setattr(self_check, "_folder", waits)
    hanging: self_check.Hanging = {}
    for _ in range(5):
        trouble = await look(settings, hanging)
        assert trouble is not None
        assert "does not answer" in trouble.text
    assert len(calls) == 1
    monkeypatch.setattr(self_check, "_folder", lambda *_: None)
    monkeypatch.setattr(self_check, "HANGS_SECONDS", 5)
    answers.set()
    assert not await look(settings, hanging)  # the server is back
    assert hanging == {}


def test_the_mount_of_a_path_is_the_deepest_one(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "1 0 0:1 / / rw - ext4 /dev/sda rw\n"
        "2 1 0:2 / /mnt rw,relatime shared:1 - nfs4 box:/data rw\n"
        "3 1 0:3 / /mnt/big\\040disk rw - xfs /dev/sdb rw\n"
    )
    assert mount_of("/mnt/models/x", table) == "nfs4 box:/data on /mnt"
    assert mount_of("/mnt/big disk/x", table) == "xfs /dev/sdb on /mnt/big disk"
    assert mount_of("/mntx", table) == "ext4 /dev/sda on /"
    assert mount_of("the clock", table) == ""
