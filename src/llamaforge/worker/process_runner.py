"""Ranks as real processes: `python -m llamaforge.train.rank --assignment FILE --control-fd N`.

Each is the leader of a session of its own, so that its whole family is signalled together, and is
killed by the kernel when the worker dies. The worker talks to it over a socket pair.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from llamaforge.spec.fleet import WorkerSettings
from llamaforge.spec.ranks import Assignment, FromRank, ToRank
from llamaforge.worker.confine import Confinement
from llamaforge.worker.line_pace import LinePace
from llamaforge.worker.rank_environment import notes, rank_environment
from llamaforge.worker.rank_runner import Exit

LAST_LINES = 20
LINE_BYTES = 4096
"""Longer lines of output are cut."""
REPORT_BYTES = 16 << 20
"""Longest report of a rank."""
DRAIN_SECONDS = 5.0
"""How long to read on after a rank's exit: a child that left its group may hold its output."""

RANK = ("-m", "llamaforge.train.rank")
CANARY = ("-m", "llamaforge.train.canary")

log = logging.getLogger("llamaforge.worker")


class ProcessRunner:
    """Starts rank processes.

    Args:
        settings: of the worker.
        exports: what the settings file adds to the ranks' environment.
        rank: the arguments after `python`; tests give their own script.
        canary: the same for a canary slice.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        exports: Mapping[str, str],
        *,
        rank: Sequence[str] = RANK,
        canary: Sequence[str] = CANARY,
    ) -> None:
        self._rank, self._canary = tuple(rank), tuple(canary)
        self._environment: dict[str, str] = {}
        self._confinement: Confinement
        self.reconfigure(settings, exports)

    @property
    def canary(self) -> tuple[str, ...]:
        """The program of a canary slice."""
        return self._canary

    def reconfigure(self, settings: WorkerSettings, exports: Mapping[str, str]) -> None:
        """Takes over settings that were read again."""
        self._environment = rank_environment(os.environ, settings, exports)
        self._confinement = Confinement(settings, self._environment)
        if scratch := self._confinement.scratch:
            self._environment["TMPDIR"] = str(scratch)
        for note in notes(self._environment):
            log.warning("%s", note)

    async def start(
        self,
        assignment: Assignment,
        folder: Path,
        *,
        on_report: Callable[[FromRank], None],
        on_line: Callable[[str], None],
    ) -> RankProcess:
        """Starts one rank; see `RankRunner.start`."""
        path = folder / f"rank-{assignment.rank}.json"
        path.write_bytes(msgspec.json.encode(assignment))
        ours, theirs = socket.socketpair()
        control = theirs.fileno()
        command = (*self._rank, "--assignment", str(path), "--control-fd", str(control))
        try:
            with theirs:
                process, output = await self._spawn(command, [folder], keep=(control,))
        except BaseException:
            ours.close()
            raise
        reader, writer = await asyncio.open_connection(sock=ours, limit=REPORT_BYTES)
        return RankProcess(process, output, on_line, Pipe(reader, writer, on_report))

    async def start_script(
        self,
        arguments: Sequence[str],
        folder: Path,
        *,
        cwd: Path,
        defaults: Mapping[str, str],
        environment: Mapping[str, str],
        on_line: Callable[[str], None],
    ) -> RankProcess:
        """Starts one rank of a script; see `RankRunner.start_script`."""
        given = {**defaults, **self._environment, **environment}
        process, output = await self._spawn(arguments, [folder], environment=given, cwd=cwd)
        return RankProcess(process, output, on_line)

    async def _spawn(
        self,
        arguments: Sequence[str],
        own: Sequence[Path],
        *,
        keep: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> tuple[asyncio.subprocess.Process, Output]:
        """Starts Python, confined to what it needs; standard output and error are one pipe."""
        reading, printing = os.pipe()
        output = await Output.open(reading)
        try:
            with os.fdopen(printing, "wb") as standard, self._confinement.entrance(own) as enter:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-u",  # its last words reach the log even when it is killed
                    *arguments,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=standard,
                    stderr=asyncio.subprocess.STDOUT,
                    pass_fds=keep,
                    env=self._environment if environment is None else environment,
                    cwd=cwd,
                    start_new_session=True,
                    preexec_fn=enter,
                )
        except BaseException:
            output.close()
            raise
        return process, output


class Output:
    """The reading end of a pipe.

    asyncio's own `stdout=PIPE` would make `Process.wait` wait for everybody who has inherited it,
    such as a rank's forgotten child.
    """

    def __init__(self, reader: asyncio.StreamReader, transport: asyncio.ReadTransport) -> None:
        self.reader, self._transport = reader, transport

    @classmethod
    async def open(cls, handle: int) -> Output:
        """Takes over a file descriptor."""
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(handle, "rb")
        )
        return cls(reader, transport)

    def close(self) -> None:
        """Closes the pipe."""
        self._transport.close()


class Pipe:
    """The worker's end of the pipe that it shares with a rank of ours."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_report: Callable[[FromRank], None],
    ) -> None:
        self.writer = writer
        self.hearing = asyncio.ensure_future(_hear(reader, on_report))


class RankProcess:
    """One running rank; see `rank_runner.Rank`.

    Args:
        process: leads a session of its own.
        output: what it prints.
        on_line: told every line of it.
        pipe: to talk to it; None for somebody's script, which knows nothing of us.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        output: Output,
        on_line: Callable[[str], None],
        pipe: Pipe | None = None,
    ) -> None:
        self._process, self._output, self._pipe = process, output, pipe
        self._sent: set[int] = set()
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._readers = [asyncio.ensure_future(self._copy(output.reader, on_line))]
        if pipe is not None:
            self._readers.append(pipe.hearing)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def say(self, message: ToRank) -> None:
        """Sends it a message; a script hears nothing."""
        if self._pipe is not None:
            self._pipe.writer.write(msgspec.json.encode(message) + b"\n")

    def terminate(self) -> None:
        """SIGTERM to it and its children."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to it and its children."""
        self._signal(signal.SIGKILL)

    async def wait(self) -> Exit:
        """Waits for its end, reads what it still said, and ends children that it left."""
        status = await self._process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        _, unread = await asyncio.wait(self._readers, timeout=DRAIN_SECONDS)
        for reader in unread:
            reader.cancel()
        if self._pipe is not None:
            self._pipe.writer.close()
        self._output.close()
        number = -status if status < 0 else None
        return Exit(
            code=status if number is None else None,
            signal=number,
            ordered=bool(self._sent) if number is None else number in self._sent,
            last_lines=tuple(self._last),
        )

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            self._sent.add(int(number))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    async def _copy(self, output: asyncio.StreamReader, on_line: Callable[[str], None]) -> None:
        async for line in lines(output):
            self._last.append(line)
            on_line(line)


async def lines(output: asyncio.StreamReader) -> AsyncIterator[str]:
    """The lines of a process's output, no faster than `LinePace` allows.

    Long ones are cut, and `\\r` ends one as well.
    """
    pace = LinePace()
    rest = b""
    while data := await output.read(1 << 16):
        *whole, rest = (rest + data).replace(b"\r", b"\n").split(b"\n")
        for line in whole:
            if line.strip():
                yield line[:LINE_BYTES].decode(errors="replace")
        rest = rest[:LINE_BYTES]
        await pace.take(len(whole))
    if rest.strip():
        yield rest.decode(errors="replace")


async def _hear(reader: asyncio.StreamReader, on_report: Callable[[FromRank], None]) -> None:
    """Passes a rank's reports on until it closes the pipe."""
    decoder: msgspec.json.Decoder[FromRank] = msgspec.json.Decoder(FromRank)
    with contextlib.suppress(ConnectionError):
        while True:
            try:
                if not (line := await reader.readline()):
                    return
                report = decoder.decode(line)
            except (ValueError, msgspec.MsgspecError) as why:  # a line too long, or no report
                log.warning("a rank said something that can't be understood: %s", why)
            else:
                on_report(report)
