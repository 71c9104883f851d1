"""When rank 0 saves, and how a state becomes a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from llamaforge.bundle import checkpoints
from llamaforge.spec.beat import Phase
from llamaforge.spec.job import Job
from llamaforge.train import beat
from llamaforge.train.report import Reporter
from llamaforge.train.state import State

SOONEST = 60.0
"""Seconds between two checkpoints that nobody asked for."""
SHARE = 0.01
"""Of the time that such checkpoints may cost."""


class Saver:
    """Saves every N steps or M minutes, whichever comes first; sooner where it costs little.

    A lost node costs the steps since the newest checkpoint. A LoRA's takes milliseconds, so it is
    saved every minute; one that takes ten seconds has to wait for its M minutes.

    Args:
        job: says how often, and how many to keep.
        root: the folder of checkpoints.
        reporter: is told of each one.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        job: Job,
        root: Path,
        reporter: Reporter,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._job = job
        self._root = root
        self._reporter = reporter
        self._clock = clock
        self._last = clock()
        self._cost = 0.0
        """Seconds that the newest checkpoint took."""
        self._saved_step: int | None = None

    def due(self, step: int) -> bool:
        """Whether to save now that `step` steps are committed."""
        spec = self._job.spec
        by_steps = spec.save_steps is not None and step % spec.save_steps == 0
        pause = min(spec.save_minutes * 60, max(SOONEST, self._cost / SHARE))
        by_time = spec.save_minutes > 0 and self._clock() - self._last >= pause
        return by_steps or by_time

    def save(self, state: State) -> None:
        """Commits a checkpoint of the current state, unless this step's stands already."""
        step = state.cursor.step
        if step == self._saved_step:
            return
        beat.now(Phase.SAVES)
        begin = self._clock()
        with checkpoints.begin(self._root, step) as partial:
            state.write(partial.path)
            path = partial.commit(state.facts(self._job), keep=self._job.spec.keep_last)
        self._saved_step, self._last = step, self._clock()
        self._cost = self._last - begin
        self._reporter.checkpoint(step, path)
        self._reporter.note(
            "checkpoint",
            f"saved {path.name} in {self._cost:.2f} s",
            step=step,
            seconds=round(self._cost, 4),
        )
