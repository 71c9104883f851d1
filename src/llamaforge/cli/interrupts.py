"""What Ctrl-C, SIGTERM and a lost terminal mean to a job that is being watched.

on a terminal     Ctrl-C asks: detach, cancel, or go on; a second one while asked cancels
cancel            asks for a checkpoint and the job's end; once more ends it at once; a third
                  time leaves without waiting
no terminal, or a fleet of this command's own: nothing to ask, Ctrl-C cancels
SIGTERM           cancels
lost terminal     detaches: the job goes on; on a fleet of this command's own it cancels
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Any

from llamaforge.cli import question
from llamaforge.cli.progress import View
from llamaforge.cli.question import Question
from llamaforge.errors import LlamaForgeError
from llamaforge.wire.client import FleetClient

ASKED = "detach (the job goes on), cancel (a checkpoint is saved), or go on? [d/c/G] "


class Interrupts:
    """Handles the signals within its block; afterwards they mean what they meant before.

    Args:
        client: the fleet's client.
        job_id: the job.
        view: shows the job; it keeps still while a person is asked.
        only_detach: nothing that comes ends the job.
    """

    def __init__(
        self, client: FleetClient, job_id: str, view: View, *, only_detach: bool = False
    ) -> None:
        self.cancelled = False
        """Whether this command has asked the job to end."""
        self.detached = False
        """Whether this command is to leave the job alone."""
        self.leave: Callable[[], object] = lambda: None
        """Ends the watching."""
        self._client, self._job_id, self._view = client, job_id, view
        self._only_detach = only_detach
        self._private = client.keeper is not None
        self._count = 0
        self._question: Question | None = None
        self._loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        self._requests: list[asyncio.Task[None]] = []
        self._before: dict[signal.Signals, Any] = {}
        self._terminals = [number for number in (0, 1, 2) if _isatty(number)]

    def __enter__(self) -> Interrupts:
        self._handle(signal.SIGINT, self._interrupted)
        self._handle(signal.SIGTERM, self._terminated)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
            self._handle(signal.SIGHUP, self._hung_up)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._answered()
        for number, before in self._before.items():
            self._loop.remove_signal_handler(number)
            signal.signal(number, before)
        for request in self._requests:
            request.cancel()

    def _handle(self, number: signal.Signals, action: Callable[[], None]) -> None:
        self._before[number] = signal.getsignal(number)
        self._loop.add_signal_handler(number, action)

    # ── what comes ────────────────────────────────────────────────────────────────────────────

    def _interrupted(self) -> None:
        if self._only_detach:
            self._detach()
        elif self._question is None and self._may_ask():
            self._view.hold()
            self._question = Question("\n" + ASKED, self._answer)
        else:
            self._cancel()

    def _terminated(self) -> None:
        if self._only_detach:
            self._detach()
        else:
            self._cancel()

    def _hung_up(self) -> None:
        """What is still written to a terminal that is gone must not end this command."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in self._terminals:
            os.dup2(nowhere, number)
        os.close(nowhere)
        if self._private and not self._only_detach:
            self._cancel()
        else:
            self._detach()

    def _may_ask(self) -> bool:
        return self._count == 0 and not self._private and question.can_ask()

    def _answer(self, line: str | None) -> None:
        word = None if line is None else line.lower()
        if word is None or word in ("d", "detach"):
            self._detach()
        elif word in ("c", "cancel"):
            self._cancel()
        elif word in ("", "g", "go", "go on"):
            self._answered()
        elif self._question is not None:
            self._question.ask()

    # ── what is done ──────────────────────────────────────────────────────────────────────────

    def _answered(self) -> None:
        if self._question is not None:
            self._question.close()
            self._question = None
            self._view.release()

    def _detach(self) -> None:
        self._answered()
        self.detached = True
        self.leave()

    def _cancel(self) -> None:
        self._answered()
        self._count += 1
        self.cancelled = True
        if self._count == 1:
            self._view.say(
                "stopping: saving a checkpoint at the next step; Ctrl-C again ends it at once"
            )
        elif self._count == 2:
            self._view.say("ending the job at once")
        elif self._main is not None:
            self._main.cancel()
            return
        self._requests.append(self._loop.create_task(self._ask(now=self._count > 1)))

    async def _ask(self, *, now: bool) -> None:
        try:
            await self._client.stop(self._job_id, "interrupted on the command line", now=now)
        except LlamaForgeError as error:
            self._view.say(f"could not ask the coordinator to stop the job: {error.message}")


def _isatty(number: int) -> bool:
    try:
        return os.isatty(number)
    except OSError:
        return False
