"""Why a job failed: the first cause among everything that breaks when one rank does."""

from __future__ import annotations

import signal
from collections.abc import Sequence

import msgspec

from llamaforge.coordinator.outcome import RESUME_HINT, Setback
from llamaforge.errors import LlamaForgeError

_CONNECTION_WORDS = (
    "closed by peer",
    "connection reset",
    "connection refused",
    "broken pipe",
    "timed out",
    "connection closed",
    "socket timeout",
)
_FOLLOWS = ("GroupBroken", "PeerFailed")
"""Classes of the errors that a rank reports when another one has left, or said that it failed."""
_CERTAIN = ("NotFinite",)
"""Errors that the same rows, weights and kernels bring about each time: trying again is in vain."""


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that went wrong in a generation."""

    node: str
    rank: int | None = None
    """None when the node as a whole is meant."""
    what: str
    """Such as `was killed by SIGKILL`; continues "rank 1 on b"."""
    hint: str = ""
    user_error: bool = False
    consequence: bool = False
    """True when it may just follow from another rank's death."""
    last_lines: tuple[str, ...] = ()
    """The end of the rank's output."""
    setback: Setback | None = None
    """What it means for the job; None when trying again can't help."""

    def __str__(self) -> str:
        where = f"node {self.node}" if self.rank is None else f"rank {self.rank} on {self.node}"
        lines = () if self.user_error else self.last_lines
        tail = "".join(f"\n    {line}" for line in lines)
        return f"{where} {self.what}" + (f"\n  its last lines:{tail}" if tail else "")


def first(causes: Sequence[Cause]) -> Cause:
    """The earliest cause that doesn't follow from another one, else the earliest.

    When a machine goes, ranks elsewhere often report a broken connection before anybody knows
    why; so a connection's end never explains a failure while there is a better reason.
    """
    return next((cause for cause in causes if not cause.consequence), causes[0])


def of_error(
    node: str, rank: int | None, kind: str, message: str, *, hint: str = "", user_error: bool
) -> Cause:
    """The cause that a rank or a worker reported itself."""
    plain = user_error or kind in ("", LlamaForgeError.__name__)
    named = message if plain else f"{kind}: {message}"
    text = message.lower()
    consequence = not user_error and (
        kind in _FOLLOWS or any(words in text for words in _CONNECTION_WORDS)
    )
    setback = Setback.LOST if consequence else Setback.ERROR
    return Cause(
        node=node,
        rank=rank,
        what=f"failed: {named}",
        hint=hint,
        user_error=user_error,
        consequence=consequence,
        setback=None if user_error or kind in _CERTAIN else setback,
    )


def of_exit(
    node: str,
    rank: int,
    code: int | None,
    number: int | None,
    last_lines: tuple[str, ...],
    *,
    memory: str = "",
) -> Cause:
    """The cause that lies in how a rank's process ended without saying anything.

    Args:
        node: where.
        rank: which.
        code: its exit code.
        number: or the signal that killed it.
        last_lines: of its output.
        memory: whose memory was at its end, where the kernel killed it for that.
    """
    hint = ""
    if number is None:
        what = f"ended with exit code {code}"
    else:
        what = f"was killed by {_signal_name(number)}"
    if memory:
        what += f" for want of memory: {memory}"
        hint = (
            f"`llamaforge train --dry-run` says what the job needs; on {node}: "
            "sudo llamaforge worker install --memory SIZE"
        )
    elif number == signal.SIGKILL:
        hint = "was memory short? see `journalctl -k` on the node"
    return Cause(
        node=node,
        rank=rank,
        what=what,
        hint=hint,
        consequence=number == signal.SIGABRT,
        last_lines=last_lines,
        setback=Setback.ERROR if number is None else Setback.LOST,
    )


def of_lost(node: str, why: str) -> Cause:
    """A node is gone for good."""
    return Cause(
        node=node,
        what=f"is lost: {why}",
        hint=RESUME_HINT,
        setback=Setback.LOST,
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
