"""One question on the terminal while the event loop goes on."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable

import click

STDIN = 0


def can_ask() -> bool:
    """Whether somebody sits at a terminal that this process may read from now."""
    try:
        return os.isatty(STDIN) and sys.stderr.isatty() and os.tcgetpgrp(STDIN) == os.getpgrp()
    except OSError:  # the terminal has just gone
        return False


class Question:
    """Asks, and hands on each line that is typed, until it is closed.

    Args:
        text: the question.
        answer: is given a line without its end; None when the terminal has gone.
    """

    def __init__(self, text: str, answer: Callable[[str | None], None]) -> None:
        self._text, self._answer = text, answer
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(STDIN, self._read)
        self.ask()

    def ask(self) -> None:
        """Prints the question, once more if it was answered with something else."""
        click.echo(self._text, nl=False, err=True)

    def close(self) -> None:
        """Listens no more."""
        self._loop.remove_reader(STDIN)

    def _read(self) -> None:
        try:
            typed = os.read(STDIN, 4096)
        except OSError:
            typed = b""
        self._answer(typed.decode(errors="replace").strip() if typed else None)
