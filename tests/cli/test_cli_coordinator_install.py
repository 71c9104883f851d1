"""`llamaforge coordinator install` up to where it would touch the machine."""

from __future__ import annotations

import json
import os

import pytest

from llamaforge.cli.main import run
from llamaforge.service.machine import Machine


@pytest.fixture(autouse=True)
def _never_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a dry run or a mistake must write nothing")

    monkeypatch.setattr(Machine, "write", refuse)
    monkeypatch.setattr(Machine, "run", refuse)
    monkeypatch.setattr(Machine, "_systemd_version", lambda _: 252)


def install(*options: str) -> int:
    return run(["coordinator", "install", *options])


def test_without_root_the_command_for_root_is_named(monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert install() == 2
    assert "sudo llamaforge coordinator install" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--purge",), "--uninstall --purge"),
        (("--prot", "1"), "--port"),
        (("--port", "many"), "LLAMAFORGE_PORT"),
        (("--public", "a..b"), "LLAMAFORGE_PUBLIC"),
        (("--cache-limit", "big"), "LLAMAFORGE_CACHE_LIMIT"),
        (("--memory", "8"), "64M are the least"),
        (("--uninstall", "--host", "10.0.0.1"), "--host would change it"),
        (("--no-start", "--now"), "contradict"),
        (("--env", "A=b"), "no such option"),
    ],
)
def test_a_mistake_is_named(options, named, capsys):
    assert install("--dry-run", *options) == 2
    assert named in capsys.readouterr().err


def test_a_dry_run_shows_settings_and_unit(monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert install("--dry-run", "--json", "--host", "10.0.0.1", "--node-grace", "9") == 0
    shown = json.loads(capsys.readouterr().out)
    files = {file["path"]: file for file in shown["files"]}
    settings = files["/etc/llamaforge/coordinator.conf"]["content"]
    assert "\nLLAMAFORGE_HOST=10.0.0.1\n" in settings
    assert "\nLLAMAFORGE_NODE_GRACE=9\n" in settings
    assert "/usr/local/lib/systemd/system/llamaforge-coordinator.service" in files
    assert ["systemctl", "enable", "--quiet", "llamaforge-coordinator.service"] in shown["commands"]
