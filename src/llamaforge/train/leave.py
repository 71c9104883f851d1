"""SIGTERM and Ctrl-C: leave at the next step boundary, with a checkpoint.

Both reach a rank through torchrun as well (its agent hands them on), so the same wish may come
twice; the agent kills what is left after its own patience (30 seconds by default).
"""

from __future__ import annotations

import signal
from types import FrameType

from llamaforge.errors import LlamaForgeError


class Interrupted(LlamaForgeError):
    """Told to leave while there was nothing to save yet.

    Args:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} before training began")
        self.exit_code = 128 + number


class Leave:
    """The wish to leave, as `train.run.train` asks for it."""

    def __init__(self) -> None:
        self.training = False
        """While True a signal is kept for the next step boundary; else it ends the process."""
        self._reason: str | None = None

    def listen(self) -> None:
        """Takes over SIGTERM and SIGINT; only in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def __call__(self) -> str | None:
        """Why to leave, or None."""
        return self._reason

    def _ask(self, number: int, _: FrameType | None) -> None:
        if not self.training:
            raise Interrupted(number)
        self._reason = self._reason or signal.Signals(number).name
