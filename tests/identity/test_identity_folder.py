"""An identity on disk: private, whole, and replaced in one step."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from llamaforge.errors import FleetError
from llamaforge.identity import contexts, folder
from llamaforge.identity.folder import About


def save(home: Path, key: str = "k") -> None:
    folder.save(home, key=key, certificate="c", authority="a", about=About(name="n", token="t"))


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        save(tmp_path / "state" / "identity")
    finally:
        os.umask(before)
    home = tmp_path / "state" / "identity"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} == {0o600}
    assert folder.complete(home)
    assert folder.about(home) == About(name="n", token="t")


def test_a_renewal_keeps_what_is_known_about_it(tmp_path: Path) -> None:
    save(tmp_path)
    folder.save(tmp_path, key="new", certificate="c", authority="a")
    assert folder.about(tmp_path).name == "n"
    assert folder.identity_file(tmp_path).read_text() == "new\nc\n"


def test_a_full_disk_leaves_the_old_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, "new")
    assert folder.identity_file(tmp_path).read_text() == "old\nc\n"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_missing_or_broken_identity_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="can't be used") as error:
        contexts.client(tmp_path)
    assert "llamaforge worker join" in error.value.hint
    save(tmp_path)
    with pytest.raises(FleetError, match="can't be used"):
        contexts.server(tmp_path)
