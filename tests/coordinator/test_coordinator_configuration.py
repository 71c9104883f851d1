"""The coordinator's settings, read again while it runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamaforge.coordinator.configuration import Configuration
from llamaforge.errors import SpecError
from llamaforge.spec import settings_file


def test_a_reload_changes_patience_and_names_what_it_can_not_change(tmp_path: Path) -> None:
    file = tmp_path / "coordinator.conf"
    file.write_text("LLAMAFORGE_PORT=1\nLLAMAFORGE_NODE_GRACE=5\n")
    configuration = Configuration({}, {}, str(file))
    file.write_text("LLAMAFORGE_PORT=2\nLLAMAFORGE_NODE_GRACE=9\n")
    change = configuration.reload()
    assert change.now == ("LLAMAFORGE_NODE_GRACE",)
    assert change.after_restart == ("LLAMAFORGE_PORT",)
    assert (configuration.settings.port, configuration.settings.node_grace) == (1, 9.0)


def test_only_the_service_reads_the_usual_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "coordinator.conf"
    file.write_text("MASTER_ADDR=10.0.0.1\n")
    monkeypatch.setattr(settings_file, "COORDINATOR_PATH", str(file))
    assert Configuration({}, {}).settings.port == 29400
    with pytest.raises(SpecError, match="MASTER_ADDR is not a setting of the coordinator"):
        Configuration({}, {"SYSTEMD_EXEC_PID": str(os.getpid())})
