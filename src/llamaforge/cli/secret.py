"""Asks for a join token, so that it stands in no process list, shell history or log."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import click

from llamaforge.errors import UserError
from llamaforge.identity.token import JoinToken

LONGEST = 4096
"""Characters that are read; a token has 104."""


def ask_token(file: Path | None) -> JoinToken:
    """The token: from a file, a terminal (hidden), or standard input.

    Raises:
        UserError: it is none, or others can read the file.
    """
    if file is not None:
        return JoinToken.parse(_read(file))
    if sys.stdin.isatty():
        return JoinToken.parse(click.prompt("token", hide_input=True, err=True))
    text = sys.stdin.read(LONGEST)
    if not text.strip():
        raise UserError(
            "no join token came: standard input is empty, and there is no terminal to ask on",
            hint="pipe the token in, or name a file that has it: --token-file FILE (mode 0600)",
        )
    return JoinToken.parse(text)


def _read(file: Path) -> str:
    try:
        with file.open() as opened:
            mode = stat.S_IMODE(file.stat().st_mode)
            if mode & 0o077:
                raise UserError(
                    f"others can read {file} (mode {mode:04o}), and it holds a secret",
                    hint=f"chmod 600 {file}",
                )
            return opened.read(LONGEST)
    except (OSError, UnicodeDecodeError) as why:
        raise UserError(f"--token-file {file} can't be read: {why}") from why
