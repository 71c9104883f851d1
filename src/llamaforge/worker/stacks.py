"""Where each rank of a job stands: its process's state, its last word, and its threads' stacks.

Ranks, and scripts as `worker.script_main` starts them, write all threads' stacks into
`rank-N.stacks` at SIGUSR2, from a signal handler in C: also while the main thread is stuck in a
library. A process that is stopped or waits for a disk can't; its state says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from llamaforge.spec.beat import Seen
from llamaforge.wire.messages import RankStack
from llamaforge.worker import pulse, rank_files
from llamaforge.worker.process_state import STOPPED, catches, process_state, waits_in

MOST_BYTES = 64 << 10
"""Of a rank's dump; the rest is cut off."""
DUMP_SECONDS = 3.0
"""How long ranks may take to write their stacks."""
QUIET_SECONDS = 0.2
"""A dump that has not grown for so long is whole."""
LOOK_SECONDS = 0.02

_NUMBER = signal.SIGUSR2


async def gather(folder: Path, pids: Mapping[int, int]) -> tuple[RankStack, ...]:
    """Asks the ranks for their stacks, and says where each one stands.

    Args:
        folder: of the job on this node.
        pids: process ids by rank.
    """
    now = time.monotonic_ns()
    words = {rank: pulse.seen(folder, rank) for rank in pids}  # before they are disturbed
    states = {rank: process_state(pid) for rank, pid in pids.items()}
    starts = {rank: rank_files.size(_file(folder, rank)) for rank in pids}
    asked = [rank for rank, pid in pids.items() if states[rank] not in STOPPED and _ask(pid)]
    await _written(folder, {rank: starts[rank] for rank in asked})
    return tuple(
        _stack(
            rank,
            pids[rank],
            states[rank],
            words[rank],
            rank_files.read(_file(folder, rank), MOST_BYTES, offset=starts[rank]),
            now,
        )
        for rank in sorted(pids)
    )


def _file(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.stacks"


def _ask(pid: int) -> bool:
    """Sends the signal to a process that expects it."""
    if not catches(pid, _NUMBER):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, _NUMBER)
    return True


async def _written(folder: Path, starts: Mapping[int, int]) -> None:
    """Waits until all dumps are there and grow no longer, or the time is up."""
    until = time.monotonic() + DUMP_SECONDS
    sizes: dict[int, int] = {}
    quiet_since = time.monotonic()
    while time.monotonic() < until:
        seen = {rank: rank_files.size(_file(folder, rank)) for rank in starts}
        if seen != sizes:
            sizes, quiet_since = seen, time.monotonic()
        began = all(sizes[rank] > start for rank, start in starts.items())
        if began and (not starts or time.monotonic() - quiet_since >= QUIET_SECONDS):
            return
        await asyncio.sleep(LOOK_SECONDS)


def _stack(rank: int, pid: int, state: str, word: Seen | None, dump: bytes, now: int) -> RankStack:
    return RankStack(
        rank=rank,
        state=state,
        phase=word.phase.words if word else "",
        step=word.step if word else 0,
        idle=max(0.0, (now - word.at) / 1e9) if word else 0.0,
        waits=bool(word and word.waits),
        text=dump.decode(errors="replace") or _no_dump(pid, state),
    )


def _no_dump(pid: int, state: str) -> str:
    where = waits_in(pid)
    inside = f"; it sleeps in the kernel's {where}" if where else ""
    if state in STOPPED:
        return f"no stacks: process {pid} is stopped or dead (state {state}) and can't answer"
    if state == "D":
        return f"no stacks: process {pid} waits for a disk or a driver (state D){inside}"
    return f"no stacks: process {pid} did not write any within {DUMP_SECONDS:.0f} s{inside}"
