"""Keeps a private fleet alive while a job is followed: a worker that died is started again.

The job itself goes on from its newest checkpoint; the coordinator only waits for a worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import TracebackType

from llamaforge.errors import LlamaForgeError

LOOK_SECONDS = 0.5
"""Between two looks at the fleet's processes."""


class Keeping:
    """An async context manager; does nothing without a keeper.

    Args:
        keeper: starts again what has ended and returns its names; raises a LlamaForgeError when
            that is in vain, which then ends the block and is raised there.
        say: tells a person what was started again.
        every: seconds between two looks.
    """

    def __init__(
        self,
        keeper: Callable[[], Iterable[str]] | None,
        say: Callable[[str], None],
        *,
        every: float = LOOK_SECONDS,
    ) -> None:
        self._keeper, self._say, self._every = keeper, say, every
        self._task: asyncio.Task[None] | None = None
        self._trouble: LlamaForgeError | None = None

    async def __aenter__(self) -> Keeping:
        main = asyncio.current_task()
        if self._keeper is not None and main is not None:
            self._task = asyncio.ensure_future(self._keep(self._keeper, main))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._trouble is not None and kind is asyncio.CancelledError:
            raise self._trouble from None

    async def _keep(self, keeper: Callable[[], Iterable[str]], main: asyncio.Task[object]) -> None:
        while True:
            await asyncio.sleep(self._every)
            try:
                for name in keeper():
                    self._say(f"{name} had ended and was started again")
            except LlamaForgeError as why:
                self._trouble = why
                main.cancel()
                return
