"""Where real processes stand: running, stopped, dead, and such that don't know the signal."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llamaforge.spec.beat import Phase, Seen, pack
from llamaforge.wire.messages import RankStack
from llamaforge.worker import rank_files, stacks
from llamaforge.worker.process_state import catches, process_state

RANK = """
import faulthandler, signal, sys, time
faulthandler.register(signal.SIGUSR2, file=open(sys.argv[1], "ab", buffering=0), all_threads=True)
def stands_still():
    print("ready", flush=True)
    time.sleep(600)
stands_still()
"""
STRANGER = "print('ready', flush=True); import time; time.sleep(600)"

Start = Callable[[str, int], int]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    processes: list[subprocess.Popen[bytes]] = []

    def begin(program: str, rank: int) -> int:
        path = tmp_path / f"rank-{rank}.stacks"
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process.pid

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


async def gathered(folder: Path, pids: dict[int, int]) -> dict[int, RankStack]:
    return {found.rank: found for found in await stacks.gather(folder, pids)}


async def test_a_process_that_stands_still_shows_where(tmp_path: Path, start: Start) -> None:
    pid = start(RANK, 3)
    word = Seen(step=7, phase=Phase.SLICE, waits=False, at=time.monotonic_ns() - 5 * 10**9)
    (tmp_path / "rank-3.beat").write_bytes(pack(word))
    found = (await gathered(tmp_path, {3: pid}))[3]
    assert "in stands_still" in found.text
    assert (found.phase, found.step, found.waits) == ("computing a slice", 7, False)
    assert 5.0 <= found.idle < 30
    assert found.state in "SR"
    again = (await gathered(tmp_path, {3: pid}))[3]
    assert again.text.count("in stands_still") == 1  # the last dump is not told twice


async def test_a_stopped_process_is_named_as_such_and_is_not_waited_for(
    tmp_path: Path, start: Start
) -> None:
    pid, other = start(RANK, 0), start(RANK, 1)
    os.kill(pid, signal.SIGSTOP)
    while process_state(pid) != "T":
        await asyncio.sleep(0.01)
    begin = time.monotonic()
    found = await gathered(tmp_path, {0: pid, 1: other})
    assert time.monotonic() - begin < stacks.DUMP_SECONDS
    assert found[0].state == "T"
    assert "is stopped" in found[0].text
    assert "in stands_still" in found[1].text


async def test_a_process_without_a_handler_lives_on(tmp_path: Path, start: Start) -> None:
    pid = start(STRANGER, 0)
    assert not catches(pid, signal.SIGUSR2)
    found = (await gathered(tmp_path, {0: pid}))[0]
    assert "did not write any" in found.text
    assert process_state(pid) in "SR"


async def test_a_process_that_is_gone(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    found = (await gathered(tmp_path, {0: gone.pid}))[0]
    assert (found.state, found.phase) == ("X", "")
    assert await stacks.gather(tmp_path, {}) == ()


async def test_a_dump_is_bounded(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "MOST_BYTES", 40)
    found = (await gathered(tmp_path, {0: start(RANK, 0)}))[0]
    assert len(found.text) == 40


def test_links_and_pipes_of_a_rank_are_not_followed(tmp_path: Path) -> None:
    secret, folder = tmp_path / "key", tmp_path / "job"
    folder.mkdir()
    secret.write_text("secret")
    (folder / "soft").symlink_to(secret)
    os.link(secret, folder / "hard")
    os.mkfifo(folder / "pipe")
    (folder / "plain").write_text("0123456789")
    for name in ("soft", "hard", "pipe", "none", "."):
        assert rank_files.read(folder / name, 100) == b"", name
    assert rank_files.read(folder / "plain", 4, offset=3) == b"3456"
    assert [rank_files.size(folder / name) for name in ("plain", "soft", "none")] == [10, 0, 0]
