"""One job at a time on a node, whoever brings it: the fleet or a classic torchrun command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class BusyLock:
    """Who has this worker now. It lives in one event loop; nothing waits on it.

    The classic watcher uses it so:

        with busy.holding("classic job of 10.0.0.1:29500") as mine:
            if not mine:
                ...  # something else runs here; look again later
    """

    def __init__(self) -> None:
        self.holder: str | None = None
        """What the worker is busy with, for people; None when it waits."""
        self._watchers: list[Callable[[], None]] = []

    def on_change(self, watcher: Callable[[], None]) -> None:
        """Calls `watcher` after every change of `holder`."""
        self._watchers.append(watcher)

    def take(self, what: str) -> bool:
        """Takes the worker for `what`. Returns False when it is busy already."""
        if self.holder is not None:
            return False
        self._set(what)
        return True

    def free(self) -> None:
        """Ends what was taken."""
        self._set(None)

    @contextmanager
    def holding(self, what: str) -> Iterator[bool]:
        """Takes the worker for the block; yields whether it could."""
        mine = self.take(what)
        try:
            yield mine
        finally:
            if mine:
                self.free()

    def _set(self, holder: str | None) -> None:
        self.holder = holder
        for watcher in self._watchers:
            watcher()
