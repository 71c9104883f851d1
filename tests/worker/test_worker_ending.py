"""A task ends, even one that loses a cancellation."""

from __future__ import annotations

import asyncio

import pytest

from llamaforge.worker import ending
from llamaforge.worker.ending import end


async def test_a_lost_cancellation_is_made_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "AGAIN_SECONDS", 0.01)
    lost = 0

    async def careless() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost += 1
                if lost > 2:
                    raise

    task = asyncio.ensure_future(careless())
    await asyncio.sleep(0)
    await asyncio.wait_for(end(task), 5)
    assert lost == 3


async def test_who_cleans_up_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "AGAIN_SECONDS", 0.001)
    saved = False

    async def careful() -> None:
        nonlocal saved
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(20):
                await asyncio.sleep(0.001)
            saved = True

    task = asyncio.ensure_future(careful())
    await asyncio.sleep(0)
    await end(task, gently=True)
    assert saved


async def test_what_a_task_raises_is_its_own_affair() -> None:
    async def broken() -> None:
        raise ValueError

    task = asyncio.ensure_future(broken())
    await end(task)
