"""The counter of restarts: what it counts, and when a mail is due."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

FILE = Path(__file__).resolve().parents[2] / "packaging" / "mail" / "restarts.py"
SPEC = importlib.util.spec_from_file_location("packaged_restarts", FILE)
assert SPEC is not None
assert SPEC.loader is not None
restarts = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(restarts)

CRASH = {"result": "exit-code", "code": "exited", "status": "1"}
LIMIT = {"restarts": 5, "minutes": 10, "quiet_minutes": 60}


@pytest.mark.parametrize(
    ("result", "code", "status", "counted"),
    [
        ("exit-code", "exited", "1", True),
        ("signal", "killed", "KILL", True),
        ("watchdog", "dumped", "ABRT", True),
        ("exit-code", "exited", "78", False),
        ("success", "exited", "0", False),
        ("success", "killed", "TERM", False),
        ("", "", "", False),
    ],
)
def test_only_ends_that_nobody_asked_for_count(
    result: str, code: str, status: str, counted: bool
) -> None:
    assert restarts.counts(result, code, status) is counted


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(restarts, "ENDS", tmp_path / "run")
    monkeypatch.setattr(restarts, "SETTINGS", tmp_path / "mail.conf")
    return tmp_path


def mails(seconds: list[float]) -> list[float]:
    """At which of these ends a mail is started."""
    return [second for second in seconds if restarts.count("x", CRASH, second)]


def test_six_quick_ends_are_one_mail(folder: Path) -> None:
    assert mails([100.0 + n for n in range(20)]) == [105.0]


def test_ends_far_apart_are_none(folder: Path) -> None:
    assert mails([200.0 * n for n in range(50)]) == []


def test_a_worker_that_goes_on_crashing_is_mailed_about_once_an_hour(folder: Path) -> None:
    assert mails([60.0 * n for n in range(150)]) == [300.0, 3900.0, 7500.0]


def test_the_limits_come_from_the_settings(folder: Path) -> None:
    (folder / "mail.conf").write_text("restarts = 1\nminutes=1\nquiet_minutes = 2\n", "utf-8")
    assert mails([0.0, 30.0, 60.0, 170.0]) == [30.0]
    (folder / "mail.conf").write_text("restarts = many\n", "utf-8")
    assert restarts.limits("restarts = many\n") == restarts.LIMITS


def test_the_usual_limits_are_those_of_the_mail_program() -> None:
    source = FILE.with_name("mail.py").read_text(encoding="utf-8")
    for name, number in restarts.LIMITS.items():
        assert f"    {name}: int = {number}\n" in source


def test_a_spoiled_file_counts_from_the_start(folder: Path) -> None:
    restarts.count("x", CRASH, 1.0)
    (folder / "run" / "x.json").write_text('{"ends": [', "utf-8")
    assert restarts.count("x", CRASH, 2.0) is False
    kept = json.loads((folder / "run" / "x.json").read_text("utf-8"))
    assert [end["second"] for end in kept["ends"]] == [2.0]


def test_the_file_does_not_grow_for_ever(folder: Path) -> None:
    for second in range(3 * restarts.KEPT):
        restarts.count("x", CRASH, float(second))
    kept = json.loads((folder / "run" / "x.json").read_text("utf-8"))
    assert len(kept["ends"]) == restarts.KEPT


@given(
    st.lists(st.floats(0, 1e6)),
    st.none() | st.floats(0, 1e6),
    st.fixed_dictionaries({name: st.integers(1, 1000) for name in LIMIT}),
)
def test_a_mail_is_never_due_while_it_is_quiet_or_below_the_limit(
    ends: list[float], mailed: float | None, limit: dict[str, int]
) -> None:
    due = restarts.is_due(ends, mailed, 1e6, limit)
    if mailed is not None and 1e6 - mailed < 60 * limit["quiet_minutes"]:
        assert not due
    if len(ends) <= limit["restarts"]:
        assert not due
    if due:
        assert restarts.is_due([*ends, 1e6], mailed, 1e6, limit)


def test_it_starts_the_mail_without_waiting_for_it(tmp_path: Path) -> None:
    """The program itself, with a systemctl that writes down how it was called."""
    called, program = tmp_path / "called", tmp_path / "systemctl"
    program.write_text(f'#!/bin/sh\necho "$@" >>{called}\n', "utf-8")
    program.chmod(0o755)
    source = FILE.read_text(encoding="utf-8").replace("/run/llamaforge-mail", str(tmp_path / "run"))
    copy = tmp_path / "restarts"
    copy.write_text(source.replace("/etc/llamaforge/mail.conf", str(tmp_path / "none")), "utf-8")
    crash = {"SERVICE_RESULT": "signal", "EXIT_CODE": "killed", "EXIT_STATUS": "KILL"}
    environment = {**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin", **crash}
    for _ in range(7):
        command = [sys.executable, "-I", str(copy), "llamaforge-worker"]
        subprocess.run(
            command, env=environment, check=True, timeout=20, capture_output=True, umask=0o027
        )
    kept = tmp_path / "run" / "llamaforge-worker.json"
    assert (kept.parent.stat().st_mode & 0o777, kept.stat().st_mode & 0o777) == (0o755, 0o644)
    said = called.read_text(encoding="utf-8").splitlines()
    assert said == ["start --no-block llamaforge-mail@llamaforge-worker.restarts.service"]
