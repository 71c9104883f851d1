"""`metrics.jsonl`: one line per committed step, and one per evaluation.

A step's line holds `step` (from 1; commits), `epoch`, `loss` (mean per trained token), `tokens`
(trained in this step), `total_tokens`, `lr`, `grad_norm`, `seconds`, `tokens_per_second`, `shares`
(slices per node), `redone` (times the step was done again), `memory` (peak resident bytes of rank
0), `generation` and `chain`. An evaluation's line holds `step`, `heldout_loss` and `seconds`.
Readers ignore keys that they don't know.
"""

from __future__ import annotations

from pathlib import Path

from llamaforge.monitor.lines import Line, Lines, read

__all__ = ["Metrics", "evaluations", "read", "steps"]


class Metrics(Lines):
    """Appends to `metrics.jsonl`.

    Args:
        path: the file.
        after: the step that training continues after. Lines of later steps are dropped, since
            those steps are trained again and no step may stand there twice. None starts anew.

    Raises:
        IntegrityError: the file holds something else than JSON lines.
    """

    def __init__(self, path: Path, *, after: int | None = None) -> None:
        if after is None:
            path.unlink(missing_ok=True)
        super().__init__(path)
        if after is not None:
            self.rewind(after)

    def rewind(self, after: int) -> None:
        """Drops the lines of steps later than `after`: the job goes on from there."""
        self._file.close()
        self.keep(lambda line: int(line.get("step", 0)) <= after)
        self._file = self.path.open("ab")


def steps(lines: list[Line]) -> list[Line]:
    """The lines of committed steps."""
    return [line for line in lines if "loss" in line]


def evaluations(lines: list[Line]) -> list[Line]:
    """The lines that hold a held-out loss."""
    return [line for line in lines if "heldout_loss" in line]
