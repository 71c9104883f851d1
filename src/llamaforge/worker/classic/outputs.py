"""What the ranks of a classic job print, each on a FIFO of its own.

torchrun mixes the output of its ranks into its own; so each of our ranks turns its standard output
and error to `output-N` in the job's folder as soon as it runs, and the worker knows who said what.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from llamaforge.worker.process_runner import DRAIN_SECONDS, Output, lines


class RankOutputs:
    """The FIFOs of one attempt. Make it with `open`."""

    def __init__(self) -> None:
        self._held: list[int] = []
        self._readers: list[asyncio.Task[None]] = []
        self._outputs: list[Output] = []

    @classmethod
    async def open(
        cls, folder: Path, count: int, on_line: Callable[[int, str], None]
    ) -> RankOutputs:
        """Makes the FIFOs and begins to read.

        Args:
            folder: of the attempt.
            count: ranks on this node.
            on_line: told the rank's place on this node and each line.

        Raises:
            OSError: they can't be made.
        """
        made = cls()
        for local_rank in range(count):
            path = folder / f"output-{local_rank}"
            os.mkfifo(path, 0o600)
            reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            made._held.append(os.open(path, os.O_WRONLY))  # or it would end before a rank comes
            output = await Output.open(reading)
            made._outputs.append(output)
            made._readers.append(asyncio.ensure_future(_copy(output, local_rank, on_line)))
        return made

    async def close(self) -> None:
        """Reads what is left of ranks that have ended, and stops."""
        for handle in self._held:
            os.close(handle)
        self._held.clear()
        if self._readers:
            _, unread = await asyncio.wait(self._readers, timeout=DRAIN_SECONDS)
            for reader in unread:
                reader.cancel()
        for output in self._outputs:
            output.close()


async def _copy(output: Output, local_rank: int, on_line: Callable[[int, str], None]) -> None:
    async for line in lines(output.reader):
        on_line(local_rank, line)
