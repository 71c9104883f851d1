"""A rank that stands still is named within tens of seconds, and the job goes on by itself."""

from __future__ import annotations

import time

import pytest

from fleet_rig import Rig
from llamaforge.spec.states import JobState
from llamaforge.wire.updates import GenerationStarted, NoteLine

NAMED_WITHIN = 40.0
"""Seconds from the last step to the name of the rank."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("sleep=3", "it waits for no other rank"),
        ("freeze=3", "stopped (state T), as by SIGSTOP"),
    ],
)
async def test_the_rank_that_stopped_first_is_named(rig: Rig, how: str, why: str) -> None:
    await rig.waiting("worker-1", "worker-2")
    hung, first = 0.0, float("inf")
    async with rig.client() as client:
        await rig.submit(client, "hangs", f"steps=14 pace=0.1 at=12 only=1 {how}")
        updates = []
        async for update in client.follow("hangs"):
            updates.append(update)
            if isinstance(update, NoteLine) and update.kind == "hang":
                hung = time.monotonic()
            elif isinstance(update, GenerationStarted):
                first = min(first, time.monotonic())
    assert updates[-1].state is JobState.DONE, updates[-1].reason  # type: ignore[union-attr]
    (note,) = [u for u in updates if isinstance(u, NoteLine) and u.kind == "hang"]
    assert "rank 3 on worker-2 stopped first" in note.text
    assert why in note.text
    assert hung - first < NAMED_WITHIN
    (kept,) = (rig.root / "runs" / "hangs" / "hangs").iterdir()
    text = kept.read_text()
    assert text.startswith("rank 3 on worker-2 stopped first")
    assert text.count("── rank ") == 4
    assert "in agreed" in text  # where the others wait
    if how.startswith("sleep"):
        assert "in stand_still" in text
    ends = [
        u.text for u in updates if isinstance(u, NoteLine) and "hangs: nothing has moved" in u.text
    ]
    assert ends
