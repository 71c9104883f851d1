"""How far the background is ahead of those who ask: it waits when that is far enough."""

from __future__ import annotations

import threading


class Lead:
    """Counts rows that were made ahead and have not been asked for. For several threads.

    Rows that are asked for out of turn count as well, so the lead is a measure, not a ledger.

    Args:
        most: rows to be ahead; `wait` blocks at that.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows = 0
        self._ended = False
        self._changed = threading.Condition()

    def wait(self) -> None:
        """Blocks until there is room for one more row, and takes it; at once after `end`."""
        with self._changed:
            self._changed.wait_for(lambda: self._rows < self._most or self._ended)
            self._rows += 1

    def asked(self) -> None:
        """Somebody asked for a row: the lead shrinks."""
        with self._changed:
            self._rows = max(0, self._rows - 1)
            self._changed.notify()

    def end(self) -> None:
        """Nobody will ask any more: whoever waits goes on."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
