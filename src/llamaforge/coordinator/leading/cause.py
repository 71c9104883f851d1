"""Why a job failed: the first cause among everything that breaks when one rank does, and its class.

The class (`spec.states.FailureClass`) decides with `leading.continuing` whether the job is tried
again. It is read from what is known for certain: the class of the error that a rank or a
worker reported, how a process ended, and, for errors of other libraries, their own fixed words.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Sequence

import msgspec

from llamaforge.coordinator.leading.outcome import RESUME_HINT, Outcome, Setback
from llamaforge.errors import LlamaForgeError
from llamaforge.spec.states import FailureClass, JobState

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
_DATA = ("DataError", "ModelError")
_ENVIRONMENT = (
    *("OSError", "PermissionError", "FileNotFoundError", "Occupied", "NoSpace", "FleetError"),
    *("ImportError", "ModuleNotFoundError", "IntegrityError", "Refused"),
)
"""What lies with a machine: disks, ports, libraries. IntegrityError
as well: bytes that one machine keeps, fetched or computed wrongly are right on another one."""
_MEMORY_KINDS = ("MemoryError", "OutOfMemoryError")
_MEMORY_WORDS = ("out of memory", "can't allocate", "cannot allocate", "std::bad_alloc")
_DISK_WORDS = (
    *(os.strerror(number).lower() for number in (errno.ENOSPC, errno.EDQUOT)),
    *("os error 28", "disk is full"),
)
_DRIVER_WORDS = (
    "cuda error",
    "nvidia driver",
    "driver version",
    "nccl error",
    "no kernel image",
    "address already in use",
)
_OWN_DEATHS = (signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS)
"""Signals that a program brings upon itself."""
_MACHINE_DEATHS = (signal.SIGILL, signal.SIGBUS)
"""An instruction that this processor lacks; a mapped file that its disk can't give."""


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
    failure: FailureClass = FailureClass.ERROR
    ended: str = ""
    """How the process ended that had reported it, such as `exit code 1`; empty while it runs."""
    full_disk: bool = False

    def outcome(self) -> Outcome:
        """How a generation ends that this is the first cause of."""
        return Outcome(
            state=JobState.FAILED,
            reason=str(self),
            hint=self.hint,
            user_error=self.user_error,
            setback=self.setback,
            said=self.what,
            failure=self.failure,
            node=self.node,
            full_disk=self.full_disk,
        )

    def __str__(self) -> str:
        where = f"node {self.node}" if self.rank is None else f"rank {self.rank} on {self.node}"
        lines = () if self.user_error else self.last_lines
        tail = "".join(f"\n    {line}" for line in lines)
        ended = f" ({self.ended})" if self.ended else ""
        return f"{where} {self.what}{ended}" + (f"\n  its last lines:{tail}" if tail else "")


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
    full_disk = _says_full_disk(kind, text)
    failure = FailureClass.NODE_LOST if consequence else _class_of(kind, text, user_error)
    if full_disk:
        failure = FailureClass.ENVIRONMENT
    final = failure in _FINAL or kind in _CERTAIN
    setback = Setback.LOST if consequence else Setback.ERROR
    return Cause(
        node=node,
        rank=rank,
        what=f"failed: {named}",
        hint=hint,
        user_error=user_error,
        consequence=consequence and not full_disk,
        setback=None if final else setback,
        failure=failure,
        full_disk=full_disk,
    )


def with_end(
    known: Cause, code: int | None, number: int | None, last_lines: tuple[str, ...]
) -> Cause:
    """A cause that a rank had reported itself, with how its process ended then.

    Args:
        known: what it reported.
        code: its exit code.
        number: or the signal that killed it.
        last_lines: of its output.
    """
    ended = _signal_name(number) if number is not None else f"exit code {code}"
    return msgspec.structs.replace(known, ended=ended, last_lines=last_lines)


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
        failure=FailureClass.MEMORY if memory else _class_of_end(number, last_lines),
    )


def of_hang(node: str, rank: int, why: str, *, seconds: float) -> Cause:
    """No step was committed for too long; this rank stopped first.

    Args:
        node: where it is.
        rank: which.
        why: what its process and its stack tell (`coordinator.leading.hang.first_stopped`).
        seconds: since the last sign of life.
    """
    return Cause(
        node=node,
        rank=rank,
        what=f"hangs: nothing has moved for {seconds:.0f} s, and it stopped first: {why}",
        hint="the stacks of all ranks are in the job's folder, below hangs/",
        setback=Setback.LOST,
        failure=FailureClass.HANG,
    )


def of_lost(node: str, why: str) -> Cause:
    """A node is gone for good."""
    return Cause(
        node=node,
        what=f"is lost: {why}",
        hint=RESUME_HINT,
        setback=Setback.LOST,
        failure=FailureClass.NODE_LOST,
    )


_FINAL = (FailureClass.USER, FailureClass.DATA)


def _class_of(kind: str, text: str, user_error: bool) -> FailureClass:
    """The class of a reported error; `text` is its message in lower case."""
    if kind in _DATA:
        return FailureClass.DATA
    if kind in _MEMORY_KINDS or any(words in text for words in _MEMORY_WORDS):
        return FailureClass.MEMORY
    if kind in _ENVIRONMENT:
        return FailureClass.ENVIRONMENT
    if user_error:
        return FailureClass.USER
    if any(words in text for words in _DRIVER_WORDS):
        return FailureClass.ENVIRONMENT
    return FailureClass.ERROR


def _class_of_end(number: int | None, last_lines: Sequence[str]) -> FailureClass:
    """The class of a process's end without a report of its own, as scripts have it."""
    said = "\n".join(last_lines).lower()
    if number in _MACHINE_DEATHS:
        return FailureClass.ENVIRONMENT
    if number is not None and number not in _OWN_DEATHS:
        return FailureClass.NODE_LOST
    if "memoryerror" in said or any(words in said for words in _MEMORY_WORDS):
        return FailureClass.MEMORY
    return FailureClass.ERROR


def _says_full_disk(kind: str, text: str) -> bool:
    return kind == "NoSpace" or any(words in text for words in _DISK_WORDS)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
