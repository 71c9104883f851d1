"""What pip is told on this box, and what a layer's digest notices."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.builder import pip_settings
from lab.image import _digest


def test_settings_of_the_environment_and_of_files_reach_the_build(monkeypatch, tmp_path: Path):
    file = tmp_path / "pip.conf"
    file.write_text("[global]\ntimeout = 7\nextra-index-url = file:///a/b\n    file:///c/d\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    monkeypatch.setenv("PIP_RETRIES", "9")
    found = pip_settings()
    assert found["PIP_RETRIES"] == "9"
    assert found["PIP_TIMEOUT"] == "7"
    assert found["PIP_EXTRA_INDEX_URL"].split() == ["file:///a/b", "file:///c/d"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").write_text("a")
    (tmp_path / "install.sh").write_text("#!/bin/sh")
    return tmp_path


@pytest.mark.parametrize(
    "change",
    [
        lambda source: (source / "src/a.py").write_text("b"),
        lambda source: (source / "src/a.py").rename(source / "src/b.py"),
        lambda source: (source / "src/c.py").write_text(""),
        lambda source: (source / "install.sh").chmod(0o755),
    ],
    ids=["bytes", "name", "file", "mode"],
)
def test_every_change_makes_another_layer(source: Path, change):
    before = _digest(source, ("install.sh", "src"))
    assert before == _digest(source, ("install.sh", "src"))
    change(source)
    assert _digest(source, ("install.sh", "src")) != before
