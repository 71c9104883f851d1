"""A real torchrun agent as a child of the worker: this node's side of a classic job.

The agent is torch's own, not an imitation: one that skipped its exit barrier would leave the
coordinator's torchrun hanging for minutes. It ends with the worker: the kernel kills the agent
(`tether`), and each rank ties itself to the agent in the same way.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from llamaforge.spec.fleet import WorkerSettings
from llamaforge.spec.ranks import Failed, Finished, Progress
from llamaforge.worker.confine import Confinement
from llamaforge.worker.rank_environment import rank_environment

_LONGEST_LINE = 1 << 16  # bytes; a longer one is handed on in pieces
_REMEMBERED = 20
_POST_MORTEM = re.compile(r"torch/distributed/elastic/multiprocessing/api.py:\d+\] failed")
_RANKS_EXIT = re.compile(r"^\s*exitcode\s*:\s*(-?\d+)")
"""A line of torchrun's report on a rank."""


@dataclass(frozen=True, kw_only=True)
class Seat:
    """What this node needs to know to join one torchrun store."""

    store_address: str
    """Numeric address of the store: MASTER_ADDR as it was resolved, so that nobody asks again."""
    store_port: int
    local_address: str
    """This node's address on the route to the store."""
    folder: Path
    """For this attempt's files; the reports of the ranks are found there."""


def command(settings: WorkerSettings, seat: Seat) -> list[str]:
    """The command line that joins as this node."""
    return [
        *(sys.executable, "-m", "torch.distributed.run"),
        *(f"--nnodes={settings.world_size}", f"--node_rank={settings.node_rank}"),
        f"--nproc_per_node={settings.nproc_per_node}",
        *(f"--master_addr={seat.store_address}", f"--master_port={seat.store_port}"),
        f"--local_addr={seat.local_address}",
        *("-m", "llamaforge.train.classic.peer"),
        *("--name", settings.name, "--cache-dir", str(Path(settings.cache_dir).absolute())),
        *("--folder", str(seat.folder)),
        *(("--cores", str(settings.cores)) if settings.cores else ()),
        *(("--address", settings.address) if settings.address else ()),
        *("--network-timeout", str(settings.network_timeout)),
    ]


def environment(
    settings: WorkerSettings, base: Mapping[str, str], exports: Mapping[str, str]
) -> dict[str, str]:
    """The agent's environment: that of any rank, and what torchrun reads.

    A machine without reverse DNS would otherwise spend tens of seconds in look-ups, which torch
    makes only to name hosts in its logs; so the resolver is told to give up after one second.
    """
    kept = rank_environment(base, settings, exports)
    kept["PYTHONUNBUFFERED"] = "1"
    kept["OMP_NUM_THREADS"] = "1"  # ranks set their threads by the job; this quietens torchrun
    kept["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(int(settings.stop_seconds))
    kept["RES_OPTIONS"] = f"{kept.get('RES_OPTIONS', '')} timeout:1 attempts:1".strip()
    return kept


class Agent:
    """One running torchrun agent. Make it with `Agent.start`."""

    def __init__(
        self, process: asyncio.subprocess.Process, folder: Path, stop_seconds: float
    ) -> None:
        self._process = process
        self._folder = folder
        self._stop_seconds = stop_seconds
        self.last_lines: deque[str] = deque(maxlen=_REMEMBERED)
        """The newest lines of output."""

    @classmethod
    async def start(
        cls,
        argv: list[str],
        environ: Mapping[str, str],
        *,
        folder: Path,
        stop_seconds: float,
        confinement: Confinement,
    ) -> Agent:
        """Starts the agent in a session of its own, confined and tied to this process.

        It may write to the whole cache: its ranks keep there what they get from rank 0.

        Args:
            argv: what to run; see `command`.
            environ: its whole environment.
            folder: the working directory.
            stop_seconds: how long `stop` lets ranks take to save and leave.
            confinement: of this worker's ranks.

        Raises:
            OSError: it could not be started.
        """
        with confinement.entrance([folder], cache=True) as enter:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=folder,
                env=dict(environ),
                start_new_session=True,
                preexec_fn=enter,
                limit=_LONGEST_LINE,
            )
        return cls(process, folder, stop_seconds)

    async def run(self, tell: Callable[[str], None]) -> int:
        """Hands every line of output to `tell` until the agent ends.

        Returns:
            The exit code; negative for a signal.
        """
        assert self._process.stdout is not None
        while line := await _line(self._process.stdout):
            text = line.decode(errors="replace").rstrip()
            if text:
                self.last_lines.append(text)
                tell(text)
        return await self._process.wait()

    async def stop(self) -> None:
        """Asks the ranks to save and leave; kills what is left after `stop_seconds`.

        The agent itself is not asked while it has ranks: it would leave without its exit barrier,
        and the coordinator's torchrun would wait five minutes for it.
        """
        if self._process.returncode is not None:
            return
        for pid in self._ranks() or [self._process.pid]:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), self._stop_seconds + 5)
        except asyncio.TimeoutError:
            self.kill()
            await self._process.wait()

    def _ranks(self) -> list[int]:
        """Process ids of the ranks that have begun; each leaves its own in a file."""
        pids = [int(path.read_text() or 0) for path in self._folder.glob("rank-*.pid")]
        return [pid for pid in pids if _parent(pid) == self._process.pid]

    def kill(self) -> None:
        """Ends the agent at once; the kernel ends its ranks."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)


class Transcript:
    """Logs a job's output, but holds back torchrun's report of a rank's failure.

    It is a page of traceback through torchrun itself, and says less than the rank's own words.

    Args:
        log: takes a line each.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._held: list[str] = []

    def __call__(self, line: str) -> None:
        """Takes one line."""
        if self._held or _POST_MORTEM.search(line):
            self._held.append(line)
        else:
            self._log(line)

    def end(self, *, explained: bool) -> None:
        """Logs what was held back, unless a rank has said why it failed."""
        for line in self._held if not explained else ():
            self._log(line)
        self._held.clear()


def _parent(pid: int) -> int | None:
    """The parent of a process; None when it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[1])


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next line, or a piece of one that is too long; empty at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as end:
        return end.partial
    except asyncio.LimitOverrunError as long:
        return await stream.readexactly(long.consumed)


def progress_of(folder: Path, local_rank: int) -> Progress | None:
    """What a rank of this node has left about its progress; None when it has not begun."""
    try:
        return msgspec.json.decode(
            (folder / f"progress-{local_rank}.json").read_bytes(), type=Progress
        )
    except (OSError, msgspec.MsgspecError):
        return None


def verdict(folder: Path) -> Finished | Failed | None:
    """What the ranks of this node said about the end of their part.

    Returns:
        The first failure (the oldest report of one), else the end of the first rank; None when
        no rank came so far.
    """
    said: list[Finished | Failed] = []
    for path in sorted(folder.glob("report-*.json"), key=lambda path: path.stat().st_mtime_ns):
        try:
            said.append(msgspec.json.decode(path.read_bytes(), type=Finished | Failed))
        except msgspec.MsgspecError as torn:
            said.append(Failed(kind="IntegrityError", message=f"{path.name} is torn: {torn}"))
    failures = [report for report in said if isinstance(report, Failed)]
    return failures[0] if failures else said[0] if said else None


def ending(code: int, last_lines: deque[str]) -> str:
    """An exit in words, for when no rank could say why.

    Args:
        code: exit code; negative for a signal.
        last_lines: the newest output.
    """
    for line in last_lines:
        if found := _RANKS_EXIT.search(line):
            return f"a rank ended with {_how(int(found[1]))} before it could say why"
    last = f"; its last line: {last_lines[-1]}" if last_lines else ""
    return f"torchrun ended with {_how(code)} before a rank could say why{last}"


def _how(code: int) -> str:
    """An exit code in words; negative for a signal."""
    try:
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:  # a signal without a name
        return f"signal {-code}"
