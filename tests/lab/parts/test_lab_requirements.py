"""What a box lacks is named with what to do, and ends the command line with 2."""

from __future__ import annotations

import pytest

from lab import requirements
from lab.__main__ import main


@pytest.fixture
def poor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person without root, on a box without systemd-nspawn and nft."""
    monkeypatch.setattr(requirements.os, "geteuid", lambda: 1000)
    absent = {"systemd-nspawn", "nft"}
    monkeypatch.setattr(
        requirements.shutil, "which", lambda tool, **_: None if tool in absent else f"/bin/{tool}"
    )


def test_everything_missing_is_named_at_once(poor: None):
    assert requirements.missing() == [
        "root: booting nodes needs it; run it with sudo",
        "packages: sudo apt-get install --no-install-recommends nftables systemd-container",
    ]


@pytest.mark.parametrize("words", [["up"], ["clean"], ["build"], ["enter", "node1"]])
def test_the_command_line_says_so_and_ends_with_2(poor: None, capsys, words):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: this box can't have a lab; it lacks root:")
    assert "systemd-container" in said


def test_building_where_no_lab_can_be_is_no_failure_of_the_test_run(poor: None, capsys):
    assert main(["build", "--if-possible"]) == 0
    assert "no installed image: root:" in capsys.readouterr().err


def test_what_the_kernel_refuses_is_quoted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(requirements, "_tried", lambda space, *_: f"no {space}")
    requirements._refused.cache_clear()
    try:
        found = " ".join(requirements._refused())
    finally:
        requirements._refused.cache_clear()
    assert "overlays of / with layers in /var/tmp: no --mount" in found
    assert "nftables' bridge family: no --net" in found
