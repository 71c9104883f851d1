"""Starts a program of the engine and reads what it says: the command line never imports torch.

with Engine("ask", "--job", "runs/tiny-lora") as engine:
    engine.tell({"prompt": "Hello"})
    answer = engine.hear()
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import msgspec

from llamaforge import errors
from llamaforge.errors import LlamaForgeError

LAST_LINES = 12
"""Lines of the program's error output that a failure shows."""


class Engine:
    """A `python -m llamaforge.train.…` process that speaks one JSON object a line.

    Its error output is kept, and shown only when it fails. At the end of the block it is stopped
    if it still runs.

    Args:
        program: the module's name in `llamaforge.train`.
        arguments: its command line.
    """

    def __init__(self, program: str, *arguments: str) -> None:
        self._program = program
        self._arguments = arguments

    def __enter__(self) -> Engine:
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self._command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        if kind is not None:
            process.terminate()
        try:
            process.stdin.close()
            process.wait(timeout=10)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()
        process.stdout.close()
        self._errors.close()

    def tell(self, message: dict[str, Any]) -> None:
        """Sends one object; what goes wrong with it is heard, not raised here."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(message) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return  # it has ended; `hear` says why

    def hear(self) -> dict[str, Any] | None:
        """The next object; None after the last.

        Raises:
            LlamaForgeError: the error that the program reported, or that it died.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                said = msgspec.json.decode(line, type=dict[str, Any])
            except msgspec.MsgspecError:
                continue  # something that a library printed
            if said.get("type") == "error":
                raise _error(said)
            return said
        if code := self._process.wait():
            raise LlamaForgeError(
                f"llamaforge.train.{self._program} ended with exit code {code}: {self._last()}"
            )
        return None

    def all(self) -> Iterator[dict[str, Any]]:
        """Every object until the last; errors as in `hear`."""
        while (said := self.hear()) is not None:
            yield said

    def _command(self) -> list[str]:
        return [sys.executable, "-m", f"llamaforge.train.{self._program}", *self._arguments]

    def _last(self) -> str:
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace").strip()
        return "\n".join(text.splitlines()[-LAST_LINES:])


def _error(said: dict[str, Any]) -> LlamaForgeError:
    """The error that a program of the engine reported, as the class that it was."""
    kind = getattr(errors, str(said.get("error")), LlamaForgeError)
    if not (isinstance(kind, type) and issubclass(kind, LlamaForgeError)):
        kind = LlamaForgeError
    error: LlamaForgeError = kind(str(said.get("message", "")), hint=str(said.get("hint", "")))
    return error
