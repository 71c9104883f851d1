"""The verbs of joining: what they ask, what they print, what they write."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from llamaforge.cli import coordinator_token, secret, worker_join
from llamaforge.errors import UserError
from llamaforge.identity.token import JoinToken
from llamaforge.wire.api import Token, TokenWish

TOKEN = JoinToken.make("ab" * 32)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", 90), ("30m", 1800), ("30min", 1800), ("1h", 3600), ("7d", 604800)],
)
def test_a_time_span(text: str, expected: float) -> None:
    assert coordinator_token.seconds(text) == expected


@pytest.mark.parametrize("text", ["", "1", "h", "1w", "-1h", "1.5h", "9999999999h"])
def test_a_time_span_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match="--valid"):
        coordinator_token.seconds(text)


def words(address: str = "10.0.0.1:29400", **wish: object) -> str:
    made = Token(token=TOKEN.text, address=address, expires=0.0, uses=1)
    return coordinator_token.words(made, TokenWish(**wish))  # type: ignore[arg-type]


def test_the_line_to_paste_does_not_hold_the_token() -> None:
    lines = words().splitlines()
    command = [line for line in lines if "worker join" in line]
    assert command == ["    sudo llamaforge worker join 10.0.0.1:29400"]
    assert [line.strip() for line in lines if TOKEN.secret in line] == [TOKEN.text]
    assert "llamaforge login 10.0.0.1:29400" in words(role="person", name="anna")
    assert "--host" not in words()
    assert "--host ::" in words(address="127.0.0.1:29400")


def test_the_token_is_read_from_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN.text + "\n")
    path.chmod(0o600)
    assert secret.ask_token(path) == TOKEN
    path.chmod(0o640)
    with pytest.raises(UserError, match="others can read") as error:
        secret.ask_token(path)
    assert error.value.hint == f"chmod 600 {path}"
    with pytest.raises(UserError, match="can't be read"):
        secret.ask_token(tmp_path / "none")


def test_the_token_is_read_from_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(TOKEN.text + "\n"))
    assert secret.ask_token(None) == TOKEN


def test_no_token_on_standard_input_is_said_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    with pytest.raises(UserError, match="standard input is empty"):
        secret.ask_token(None)


def test_the_token_is_asked_for_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    asked: list[dict[str, object]] = []

    def prompt(_: str, **how: object) -> str:
        asked.append(how)
        return TOKEN.text

    monkeypatch.setattr(secret.click, "prompt", prompt)
    assert secret.ask_token(None) == TOKEN
    assert asked == [{"hide_input": True, "err": True}]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "A=1\n"),
        ("B=2", "B=2\nA=1\n"),
        ("# A=old\nA=0\nB=2\n", "# A=old\nA=1\nB=2\n"),
        ("# what it is\n#A=\nB=2\n", "# what it is\nA=1\nB=2\n"),
        ("AA=5\n", "AA=5\nA=1\n"),
    ],
)
def test_a_setting_is_changed_in_its_own_line(before: str, after: str) -> None:
    assert worker_join.with_value(before, "A", "1") == after


def test_a_settings_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "worker.conf"
    worker_join._replace(path, "A=1\n")
    assert path.stat().st_mode & 0o777 == 0o644
    path.chmod(0o600)
    worker_join._replace(path, "A=2\n")
    assert path.read_text() == "A=2\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["worker.conf"]
