"""Settings that are read again while the worker runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamaforge.errors import SpecError
from llamaforge.spec import settings_file
from llamaforge.worker.configuration import Configuration


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "worker.conf"
    path.write_text("MASTER_ADDR=a\nLLAMAFORGE_PEER_PORT=1\nexport X=1\n")
    return path


def test_a_reload_changes_what_can_change_and_names_the_rest(file: Path) -> None:
    configuration = Configuration({}, {"LLAMAFORGE_CONFIG": str(file)})
    assert configuration.settings.master_addr == "a"
    file.write_text("MASTER_ADDR=b\nLLAMAFORGE_PEER_PORT=2\nexport X=2\n")
    change = configuration.reload()
    assert change.now == ("MASTER_ADDR", "X")
    assert change.after_restart == ("LLAMAFORGE_PEER_PORT",)
    assert configuration.settings.master_addr == "b"
    assert configuration.settings.peer_port == 1
    assert configuration.exports == {"X": "2"}
    assert str(configuration.reload()) == "only after a restart: LLAMAFORGE_PEER_PORT"


def test_a_wrong_file_changes_nothing(file: Path) -> None:
    configuration = Configuration({}, {}, str(file))
    before = configuration.settings
    for text in ("MASTER_ADR=x\n", "WORLD_SIZE=two\n"):
        file.write_text(text)
        with pytest.raises(SpecError, match=r"worker\.conf"):
            configuration.reload()
        assert configuration.settings is before
    file.unlink()
    with pytest.raises(SpecError, match="can't be read"):
        configuration.reload()


def test_only_a_service_reads_the_usual_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_file, "PATH", str(file))
    assert Configuration({}, {}).settings.master_addr is None
    assert Configuration({}, {"SYSTEMD_EXEC_PID": "1"}).settings.master_addr is None
    service = {"SYSTEMD_EXEC_PID": str(os.getpid())}
    assert Configuration({}, service).settings.master_addr == "a"
    file.unlink()
    assert Configuration({}, service).settings.master_addr is None


def test_a_file_in_a_folder_that_is_closed_to_the_worker_is_named(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(settings_file, "PATH", str(file))
    monkeypatch.setattr(Path, "stat", closed)
    monkeypatch.setattr(Path, "open", closed)
    with pytest.raises(SpecError, match=r"worker\.conf can't be read: Permission denied"):
        Configuration({}, {"SYSTEMD_EXEC_PID": str(os.getpid())})
