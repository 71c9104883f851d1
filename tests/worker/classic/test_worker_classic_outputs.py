"""Ranks' output on FIFOs, from real processes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from llamaforge.worker.classic.outputs import RankOutputs

RANK = """
import os, sys
handle = os.open(sys.argv[1], os.O_WRONLY)
os.dup2(handle, 1)
for number in range(int(sys.argv[2])):
    os.write(1, b"line %d\\n" % number)
os.write(1, b"no end of line")
"""


async def test_every_line_comes_once_and_in_order_with_its_rank(tmp_path: Path) -> None:
    heard: list[tuple[int, str]] = []
    outputs = await RankOutputs.open(tmp_path, 2, lambda rank, line: heard.append((rank, line)))
    ranks = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", RANK, str(tmp_path / f"output-{n}"), "5000"
        )
        for n in range(2)
    ]
    for rank in ranks:
        assert await rank.wait() == 0
    await outputs.close()
    for n in range(2):
        lines = [line for rank, line in heard if rank == n]
        assert lines == [*(f"line {i}" for i in range(5000)), "no end of line"]


async def test_a_rank_that_never_came_holds_nothing_up(tmp_path: Path) -> None:
    outputs = await RankOutputs.open(tmp_path, 1, lambda *_: None)
    await asyncio.wait_for(outputs.close(), 2)
