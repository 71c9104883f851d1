"""What waits to become durable, in order, and who waits for it.

Batches are filled in the event loop's thread and committed in the writer's, one at a time; while
one is on its way the next one is filled, so many callers share one commit. A batch that the disk
refuses stays first in line and is tried again as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from llamaforge.coordinator.ledger.durable_file import DurableFile
from llamaforge.coordinator.ledger.writer import Batch, Writer

LINGER = 0.05
"""Seconds after which rows are written for which nobody waits."""
RETRY = 1.0
"""Seconds between two tries while the disk refuses."""

log = logging.getLogger("llamaforge.coordinator")


class Queue:
    """The ledger's unwritten end.

    Args:
        writer: commits batches.
        committed: told each batch that has become durable.
        forgotten: told each file that is removed.
    """

    def __init__(
        self,
        writer: Writer,
        committed: Callable[[Batch], None],
        forgotten: Callable[[DurableFile], None],
    ) -> None:
        self.trouble = ""
        """What is wrong with the disk, in words; empty when all is well."""
        self.forget = forgotten
        self._writer, self._committed = writer, committed
        self._batches = deque([Batch()])
        self._running: Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._mistake: Exception | None = None

    @property
    def open(self) -> Batch:
        """The batch that is being filled."""
        return self._batches[-1]

    def seal(self) -> None:
        """What comes next is not part of the open batch."""
        self._batches.append(Batch())
        self.touch()

    def touch(self) -> None:
        """Something was added: it is written soon, even if nobody waits."""
        if self._timer is None and self._running is None:
            self._later(LINGER)

    def removes(self, name: str) -> bool:
        """Whether a file of this name is about to be removed."""
        return any(
            change.removed and file.name == name
            for batch in self._batches
            for file, change in batch.files.items()
        )

    async def settled(self) -> None:
        """Returns when all that is in the queue now is durable.

        Raises:
            OSError: the disk refuses; everything stays in the queue and is tried again.
        """
        if self._mistake:
            raise self._mistake
        newest = next((batch for batch in reversed(self._batches) if batch), None)
        if newest is None:
            return
        waiter = asyncio.get_running_loop().create_future()
        newest.waiters.append(waiter)
        self._start()
        await waiter

    def flush(self) -> None:
        """Makes everything durable and waits for it: for starts, ends and tests.

        Raises:
            OSError: the disk refuses; everything stays in the queue.
        """
        while self._running or any(self._batches):
            if self._mistake:
                raise self._mistake
            self._start()
            running = self._running
            if running is None:  # an empty batch was in front
                continue
            error = running.exception()
            self._finished(running)
            if error:
                raise error

    def stop(self) -> None:
        """Lets no timer ring any more."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _later(self, seconds: float) -> None:
        with contextlib.suppress(RuntimeError):  # no event loop: a start or a test flushes
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(seconds, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._start()

    def _start(self) -> None:
        """Hands the first batch to the writer, unless it has one or may not have more."""
        if self._running or self._mistake:
            return
        while len(self._batches) > 1 and not self._batches[0]:
            self._batches.popleft()
        if not self._batches[0]:
            return
        if len(self._batches) == 1:
            self._batches.append(Batch())
        self.stop()
        self._running = self._writer.submit(self._batches[0])
        with contextlib.suppress(RuntimeError):
            loop = asyncio.get_running_loop()
            self._running.add_done_callback(lambda done: self._tell(loop, done))

    def _tell(self, loop: asyncio.AbstractEventLoop, done: Future[None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed; `flush` will see to it
            loop.call_soon_threadsafe(self._finished, done)

    def _finished(self, done: Future[None]) -> None:
        if self._running is not done:
            return  # `flush` was here before
        self._running = None
        error = done.exception()
        if error is None:
            self._went_well()
        else:
            self._went_wrong(error)

    def _went_well(self) -> None:
        if self.trouble:
            log.info("the ledger can be written again")
        self.trouble = ""
        batch = self._batches.popleft()
        self._committed(batch)
        for waiter in batch.waiters:
            if not waiter.done():
                waiter.set_result(None)
        if any(batch.waiters for batch in self._batches):
            self._start()
        elif any(self._batches):
            self._later(LINGER)

    def _went_wrong(self, error: BaseException) -> None:
        """Whoever waits learns of it; nothing in the queue is given up."""
        if not self.trouble:
            log.error("the ledger can't be written: %s", error)
        self.trouble = f"the ledger can't be written: {error}"
        if not isinstance(error, OSError):
            self._mistake = error if isinstance(error, Exception) else RuntimeError(repr(error))
        for batch in self._batches:
            for waiter in batch.waiters:
                if not waiter.done():
                    waiter.set_exception(error)
            batch.waiters.clear()
        if self._mistake is None:
            self._later(RETRY)
