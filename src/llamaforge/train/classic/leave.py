"""How a rank leaves: at the next step boundary with a checkpoint, or with torchrun's agent.

SIGTERM and Ctrl-C mean the first. Both reach a rank through torchrun as well (its agent hands them
on), so the same wish may come twice; the agent kills what is left after its own patience
(30 seconds by default).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from types import FrameType

from llamaforge.errors import LlamaForgeError

_PR_SET_PDEATHSIG = 1


def tie_to_parent() -> None:
    """Makes the kernel end this process with torchrun's agent, whatever ends that.

    The agent starts ranks in sessions of their own, so nothing else would.
    """
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)


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
