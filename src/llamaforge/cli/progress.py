"""How a job is shown while it runs: a live bar, plain lines, or one JSON object a line.

    step 40/250  loss 1.234  1,234 tok/s  0:32 left  node-a 60 %, node-b 40 %  410 MB

Which one is decided once, in `view_for`; all of them read a `Tally`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO

import msgspec

from llamaforge.cli import words
from llamaforge.cli.tally import Tally
from llamaforge.spec.states import JobState
from llamaforge.wire.updates import (
    Ended,
    GenerationStarted,
    JobUpdate,
    LogLine,
    MetricLine,
    NoteLine,
    StateChanged,
)

if TYPE_CHECKING:
    from rich.console import Console

Way = Literal["upload", "download"]
"""Which way files go."""
EVERY = 3.0
"""Seconds between plain lines."""


class View(Protocol):
    """Shows a job to somebody; a context manager around the job's stream."""

    def __enter__(self) -> View: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def begin(self, tally: Tally) -> None:
        """The job is known: its updates will come, and `tally` has taken each before `show`."""

    def show(self, update: JobUpdate) -> None:
        """Shows one update."""

    def say(self, text: str) -> None:
        """Says something about the run that is not part of the job's stream."""

    def moved(self, way: Way, done: int, total: int) -> None:
        """Bytes of files that are over so far, and of all of them."""

    def hold(self) -> None:
        """Keeps still: somebody is asked something on the terminal."""

    def release(self) -> None:
        """Goes on showing, with what was held back."""


def view_for(*, as_json: bool, verbose: bool = False, out: TextIO | None = None) -> View:
    """The view that suits the output: JSON on request, a bar on a terminal, else plain lines."""
    out = out or sys.stdout
    if as_json:
        return JsonView(out)
    if out.isatty():
        from rich.console import Console

        return LiveView(Console(file=out), verbose=verbose)
    return LineView(out, verbose=verbose)


def status_line(tally: Tally) -> str:
    """Everything about the last step on one line; what is not known yet is left out."""
    left = tally.seconds_left
    parts = [
        f"step {tally.step}/{tally.total_steps}" if tally.total_steps else "",
        f"loss {tally.loss:.4f}" if tally.loss is not None else "",
        words.rate(tally.tokens_per_second) if tally.tokens_per_second is not None else "",
        f"{words.duration(left)} left" if left is not None else "",
        words.shares(tally.shares),
        words.size(tally.memory) if tally.memory is not None else "",
    ]
    return "  ".join(part for part in parts if part)


def sentence(update: JobUpdate, *, verbose: bool) -> str:
    """What an update tells a person who reads lines; empty when it is nothing of its own."""
    if isinstance(update, StateChanged):
        silent = update.state in (JobState.RUNNING, JobState.QUEUED) and not update.reason
        reason = f": {update.reason}" if update.reason else ""
        return "" if silent or update.state.final else f"{update.state.value}{reason}"
    if isinstance(update, GenerationStarted):
        nodes = ", ".join(f"{n.node} ({words.count(n.count, 'rank')})" for n in update.nodes)
        return f"generation {update.generation}: {nodes}"
    if isinstance(update, MetricLine) and "heldout_loss" in update.line:
        return f"step {update.line['step']}: held-out loss {update.line['heldout_loss']:.4f}"
    if isinstance(update, NoteLine):
        return update.text
    if isinstance(update, LogLine) and verbose:
        return f"{update.node} rank {update.rank}: {update.text.rstrip()}"
    return ""


class LineView:
    """Plain lines for logs and pipes: what happens, and the last step every few seconds."""

    def __init__(
        self,
        out: TextIO,
        *,
        verbose: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._out = out
        self._verbose = verbose
        self._clock = clock
        self._due = -float("inf")
        self._tally: Tally | None = None

    def __enter__(self) -> LineView:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to put back."""

    def begin(self, tally: Tally) -> None:
        """Takes the tally that lines are made from."""
        self._tally = tally

    def show(self, update: JobUpdate) -> None:
        """Prints the update's sentence, or now and then the last step."""
        if text := sentence(update, verbose=self._verbose):
            self.say(text)
        elif isinstance(update, MetricLine) and self._tally is not None:
            last = self._tally.step >= self._tally.total_steps
            if last or self._clock() >= self._due:
                self._due = self._clock() + EVERY
                self.say(status_line(self._tally))

    def say(self, text: str) -> None:
        """Prints one line at once."""
        print(text, file=self._out, flush=True)

    def moved(self, way: Way, done: int, total: int) -> None:
        """Prints how far files are on their way, every few seconds."""
        if self._clock() >= self._due:
            self._due = self._clock() + EVERY
            self.say(f"{way}: {words.size(done)} of {words.size(total)}")

    def hold(self) -> None:
        """Lines may stand beside a question: they do not go to the terminal."""

    def release(self) -> None:
        """Nothing was held."""


class JsonView:
    """One JSON object a line: the job's updates as they come."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def __enter__(self) -> JsonView:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to put back."""

    def begin(self, tally: Tally) -> None:
        """The updates stand for themselves."""

    def show(self, update: JobUpdate) -> None:
        """Prints the update."""
        self.put(update)

    def say(self, text: str) -> None:
        """Prints a remark as `{"type": "remark", "text": …}`."""
        self.put({"type": "remark", "text": text})

    def moved(self, way: Way, done: int, total: int) -> None:
        """Prints how far files are on their way."""
        self.put({"type": way, "done": done, "total": total})

    def hold(self) -> None:
        """Lines may stand beside a question: they do not go to the terminal."""

    def release(self) -> None:
        """Nothing was held."""

    def put(self, value: Any) -> None:
        """Prints any value as one line."""
        print(msgspec.json.encode(value).decode(), file=self._out, flush=True)


class LiveView:
    """A bar at the bottom of a terminal; sentences scroll by above it."""

    def __init__(self, console: Console, *, verbose: bool = False) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._verbose = verbose
        self._tally: Tally | None = None
        self._held: list[str] | None = None
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[status]}", markup=False),
            console=console,
            transient=True,
        )
        self._task = self._bars.add_task("preparing", total=None, status="")

    def __enter__(self) -> LiveView:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Takes the bar away."""
        self._bars.stop()

    def begin(self, tally: Tally) -> None:
        """Shows that the job waits for its ranks."""
        self._tally = tally
        self._bars.update(self._task, description=tally.state.value, total=None, status="")

    def show(self, update: JobUpdate) -> None:
        """Prints the update's sentence above the bar and moves the bar."""
        tally = self._tally
        if text := sentence(update, verbose=self._verbose):
            self.say(text)
        if tally is None or isinstance(update, Ended):
            return
        self._bars.update(
            self._task,
            description=tally.state.value,
            total=tally.total_steps if tally.step else None,
            completed=tally.step,
            status=status_line(tally),
        )

    def say(self, text: str) -> None:
        """Prints one line above the bar."""
        if self._held is not None:
            self._held.append(text)
            return
        self._bars.console.print(text, markup=False, highlight=False)

    def moved(self, way: Way, done: int, total: int) -> None:
        """Moves the bar with the files."""
        status = f"{words.size(done)} of {words.size(total)}"
        self._bars.update(self._task, description=way, total=total, completed=done, status=status)

    def hold(self) -> None:
        """Takes the bar away and keeps lines back."""
        self._held = []
        self._bars.stop()

    def release(self) -> None:
        """Prints what was kept back, and shows the bar again."""
        held, self._held = self._held or [], None
        for text in held:
            self.say(text)
        self._bars.start()
