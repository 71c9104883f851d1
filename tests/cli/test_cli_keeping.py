"""A private fleet's workers are started again while its job is followed."""

from __future__ import annotations

import asyncio

import pytest

from llamaforge.cli.keeping import Keeping
from llamaforge.errors import FleetError


async def test_what_was_started_again_is_said() -> None:
    ended, said = [["worker-1"], []], []
    again = asyncio.Event()

    def keeper() -> list[str]:
        if len(ended) == 1:
            again.set()
        return ended.pop(0) if ended else []

    async with Keeping(keeper, said.append, every=0):
        await asyncio.wait_for(again.wait(), 30)
    assert said == ["worker-1 had ended and was started again"]


async def test_a_fleet_that_can_not_be_kept_ends_the_wait() -> None:
    def keeper() -> list[str]:
        raise FleetError("worker-1 ends again and again")

    with pytest.raises(FleetError, match="again and again"):
        async with Keeping(keeper, print, every=0):
            await asyncio.Event().wait()


async def test_an_interrupt_stays_an_interrupt() -> None:
    """Three times Ctrl-C cancels the block, too."""

    async def follow() -> None:
        async with Keeping(list, print, every=0):
            await asyncio.Event().wait()

    task = asyncio.ensure_future(follow())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_somebody_elses_fleet_is_left_alone() -> None:
    async with Keeping(None, print):
        pass
    assert len(asyncio.all_tasks()) == 1
