"""`events.jsonl`: what happened in a job, in the order in which it happened.

A line holds `time` (Unix seconds), `kind` (machine-readable: `guarantee`, `checkpoint`, `resume`,
`generation`, …), `text` (one sentence for a person) and whatever fields belong to the kind. Unlike
metrics, events of steps that are trained again stay: they did happen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llamaforge.monitor.lines import Lines, read

__all__ = ["Events", "read"]

_OWN = frozenset({"time", "kind", "text"})


class Events(Lines):
    """Appends to `events.jsonl`.

    Args:
        path: the file.
        clock: tells Unix seconds; tests give their own.

    Raises:
        IntegrityError: the file holds something else than JSON lines.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(path)
        self._clock = clock

    def add(self, kind: str, text: str, **fields: Any) -> None:
        """Records one event. Fields never replace `time`, `kind` or `text`."""
        others = {key: value for key, value in fields.items() if key not in _OWN}
        self.append({"time": round(self._clock(), 3), "kind": kind, "text": text, **others})
