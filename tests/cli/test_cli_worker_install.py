"""`llamaforge worker install` up to where it would touch the machine."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from llamaforge.cli.main import run
from llamaforge.service.machine import Machine


@pytest.fixture(autouse=True)
def _never_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a dry run or a mistake must write nothing")

    monkeypatch.setattr(Machine, "write", refuse)
    monkeypatch.setattr(Machine, "run", refuse)


def install(*options: str) -> int:
    return run(["worker", "install", *options])


def test_without_root_the_command_for_root_is_named(monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert install() == 2
    assert "sudo llamaforge worker install" in capsys.readouterr().err


def test_root_gets_no_service_of_its_own(monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert install("--lingering") == 2
    assert "never run as root" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--purge",), "--uninstall --purge"),
        (("--memori", "8G"), "--memory"),
        (("--cpu-policy", "fast"), "batch"),
        (("--env", "A"), "NAME=VALUE"),
        (("--token-file", "/nowhere"), "llamaforge coordinator token"),
        (("--uninstall", "--memory", "8G", "--env", "A=b"), "--memory, --env would change it"),
        (("--uninstall", "--reset"), "--reset would change it"),
        (("--uninstall", "--no-start"), "--no-start would change it"),
        (("--uninstall", "--master-addr", "a"), "--master-addr would change it"),
        (("--no-start", "--now"), "contradict"),
        (("--master-port", "many"), "MASTER_PORT"),
        (("--numa-policy", "bind"), "--numa-node"),
    ],
)
def test_a_mistake_is_named_with_the_next_step(options, named, capsys, monkeypatch):
    monkeypatch.setattr(Machine, "_systemd_version", lambda _: 252)
    assert install("--dry-run", *options) == 2
    assert named in capsys.readouterr().err


def test_an_empty_token_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(Machine, "_systemd_version", lambda _: 252)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert install("--dry-run", "--token-file", "-") == 2
    assert "holds no token" in capsys.readouterr().err


def test_a_dry_run_needs_no_root_and_hides_the_token(monkeypatch, capsys, tmp_path: Path):
    monkeypatch.setattr(os, "geteuid", lambda: 4242)  # no account has this number
    monkeypatch.setattr(Machine, "_systemd_version", lambda _: 252)
    (tmp_path / "token").write_text("geheim\n")
    assert install("--dry-run", "--memory", "8G", "--token-file", str(tmp_path / "token")) == 0
    shown = capsys.readouterr().out
    assert "+MemoryMax=8G" in shown
    assert "/etc/llamaforge/token  (0600)" in shown
    assert "geheim" not in shown


def test_without_systemd_the_worker_can_be_run_by_hand(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    assert install("--dry-run") == 2
    assert "llamaforge worker run" in capsys.readouterr().err
