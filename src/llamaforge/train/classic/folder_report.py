"""Keeps the folder of a classic job, and says on standard output what a person wants to see.

In a fleet the coordinator does this; under plain torchrun rank 0 is all there is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llamaforge.monitor.folder import JobFolder
from llamaforge.spec.job import Job
from llamaforge.spec.ranks import Progress

_TOLD_EVERY = 2.0  # seconds between two lines of progress


class FolderReporter:
    """The reporter of rank 0.

    Args:
        path: the job's folder; made when missing.
        job: the job.
        resumed: the step that training continues after; None when it starts anew.
        tell: takes lines for a person.
        clock: seconds, monotonic.

    Raises:
        OSError: the folder can't be written.
        LlamaForgeError: see `JobFolder`.
    """

    def __init__(
        self,
        path: Path,
        job: Job,
        *,
        resumed: int | None,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = JobFolder(path, job, resumed=resumed)
        self._total = job.total_steps
        self._tell = tell
        self._clock = clock
        self._first = resumed or 0
        self._began = self._told = clock()

    def metric(self, line: dict[str, Any]) -> None:
        """Keeps one line of metrics; tells the first step, the last, and some between."""
        self._folder.metric(line)
        if "heldout_loss" in line:
            self._tell(f"step {line['step']}: held-out loss {line['heldout_loss']:.4f}")
        elif self._is_due(line["step"]):
            self._told = self._clock()
            self._tell(self._progress(line))

    def note(self, kind: str, text: str, **fields: Any) -> None:
        """Keeps one event and tells it."""
        self._folder.event(kind, text, **fields)
        self._tell(text)

    def checkpoint(self, step: int, path: Path) -> None:
        """The engine tells checkpoints as notes too; they are in their folder already."""

    def progress(self, word: Progress) -> None:
        """Rank 0's torchrun has no worker that would listen."""

    def finish(self, proof: dict[str, Any]) -> None:
        """Writes the proof and draws the loss."""
        self._folder.proof(proof)
        self._folder.draw()

    def close(self) -> None:
        """Makes what was said durable."""
        self._folder.close()

    def _is_due(self, step: int) -> bool:
        edge = step in (self._first + 1, self._total)
        return edge or self._clock() - self._told >= _TOLD_EVERY

    def _progress(self, line: dict[str, Any]) -> str:
        step, total = line["step"], self._total
        loss = "no trained token" if line["loss"] is None else f"loss {line['loss']:.4f}"
        left = (self._clock() - self._began) / (step - self._first) * (total - step)
        shares = " ".join(f"{node}:{count}" for node, count in line["shares"].items())
        return (
            f"step {step}/{total}  {loss}  {line['tokens_per_second']:.0f} tok/s  "
            f"slices {shares}  {left:.0f} s left"
        )
