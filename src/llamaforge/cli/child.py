"""One child process of an embedded fleet: its log, its end, and never longer alive than we are."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from llamaforge.errors import FleetError, LlamaForgeError, UserError
from llamaforge.spec.fleet import CoordinatorSettings, WorkerSettings, variables
from llamaforge.worker.tether import tether

LAST_LINES = 10


class Child:
    """`python -m llamaforge ARGS…` in a session of its own, so that Ctrl-C reaches only us.

    Args:
        name: what to call it in messages.
        args: the command line after `llamaforge`.
        log: the file that its output goes to.
        tethered: it dies with this process.
    """

    def __init__(self, name: str, args: list[str], log: Path, *, tethered: bool = True) -> None:
        self.name, self.log = name, log
        self._started = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "llamaforge", *args],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(os.environ),
                start_new_session=True,
                preexec_fn=tether() if tethered else None,  # noqa: PLW1509 - it only makes a call
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it lives."""
        return self._process.poll() is None

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._started

    def last_lines(self) -> list[str]:
        """The end of its output."""
        return self.log.read_text(errors="replace").splitlines()[-LAST_LINES:]

    def failure(self, what: str) -> LlamaForgeError:
        """The error for a child that ended, or does not get ready; holds its last lines.

        What the child itself refused (exit code 2) is repeated as its own words.
        """
        lines = self.last_lines()
        if self._process.poll() == UserError.exit_code:
            for place, line in enumerate(lines):
                if line.startswith("error: "):
                    hint = " ".join(part.strip() for part in lines[place + 1 :])
                    return UserError(line.removeprefix("error: "), hint=hint)
        shown = "".join(f"\n    {line}" for line in lines) or " (it said nothing)"
        return FleetError(f"{self.name} {what}; its last lines:{shown}", hint=f"see {self.log}")

    def terminate(self) -> None:
        """Asks it to end."""
        if self.running:
            self._process.terminate()

    def end(self, until: float) -> None:
        """Waits for its end until a moment of the monotonic clock, then kills it."""
        try:
            self._process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Without variables that set up this machine's own worker or coordinator: options say all."""
    settings = {*variables(WorkerSettings).values(), *variables(CoordinatorSettings).values()}
    settings -= {"HF_HOME"}  # not only ours
    return {name: value for name, value in inherited.items() if name not in settings}
