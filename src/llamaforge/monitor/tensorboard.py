"""TensorBoard's event files, made from the lines of metrics.jsonl; only where a job asks for them.

Written by TensorBoard's own writer, which needs neither torch nor TensorFlow. It comes with the
`tensorboard` extra and is imported when the first file is opened.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llamaforge.errors import UserError

_SCALARS = {
    "loss": "train/loss",
    "lr": "train/learning_rate",
    "grad_norm": "train/grad_norm",
    "tokens_per_second": "speed/tokens_per_second",
    "heldout_loss": "heldout/loss",
}


def check_installed() -> None:
    """Refuses early where the extra is missing.

    Raises:
        UserError: names the command that installs it.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError(
            "tensorboard is asked for, but not installed here",
            hint="pip install 'llamaforge[tensorboard]', or leave --tensorboard out",
        )


class TensorBoard:
    """One event file in a folder.

    Args:
        folder: where TensorBoard looks; made when missing.
        after: the step that training continues after; what earlier files say of later steps is
            then void.

    Raises:
        UserError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, *, after: int | None = None) -> None:
        check_installed()
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._session = event_pb2.SessionLog
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventFileWriter(str(folder), flush_secs=5)
        if after is not None:
            self.rewind(after)

    def rewind(self, after: int) -> None:
        """Voids what was said of steps later than `after`: the job goes on from there."""
        self._add(after + 1, session_log=self._session(status=self._session.START))

    def append(self, line: Mapping[str, Any]) -> None:
        """Adds the numbers of one line of metrics.jsonl."""
        values = [
            self._summary.Value(tag=tag, simple_value=line[key])
            for key, tag in _SCALARS.items()
            if line.get(key) is not None
        ]
        self._add(line["step"], summary=self._summary(value=values))

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()

    def _add(self, step: int, **content: Any) -> None:
        self._writer.add_event(self._event(step=step, wall_time=time.time(), **content))
