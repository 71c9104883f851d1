"""The watcher with fakes: what it says, when it joins, and that it never gives up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

import pytest

from llamaforge.spec.fleet import WorkerSettings
from llamaforge.worker.busy import BusyLock
from llamaforge.worker.classic.store_probe import Kind, Sighting
from llamaforge.worker.classic.visit import folder_of
from llamaforge.worker.classic.watch import Watcher, watch

LOG = logging.getLogger("classic-test")
NOTHING = Sighting(kind=Kind.NOTHING, text="nothing listens on A:1")
WEB = Sighting(kind=Kind.FOREIGN, text="no torchrun store listens on A:1 but an HTTP server")
ONE = Sighting(kind=Kind.WAITING, text="torchrun waits on A:1 (1 of 2 nodes)")
FULL = Sighting(kind=Kind.RUNNING, text="the torchrun on A:1 has all of its nodes")
MINE = Sighting(kind=Kind.CLAIMED, text="the torchrun on A:1 has been joined as node 1 before")


class Script:
    """Plays sightings to a watcher and counts its joins."""

    def __init__(self, seen: Iterable[Sighting], busy: BusyLock | None = None) -> None:
        self._seen = iter(seen)
        self.busy = busy or BusyLock()
        self.joins = 0
        self.holders: list[str | None] = []
        self.watcher = Watcher(self._look, self._join, self.busy, LOG)

    async def _look(self) -> Sighting:
        return next(self._seen)

    async def _join(self) -> None:
        self.joins += 1
        self.holders.append(self.busy.holder)

    async def play(self, steps: int) -> None:
        for _ in range(steps):
            await self.watcher.step()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, LOG.name)
    return caplog


async def test_a_thousand_looks_at_nothing_are_one_line(said: pytest.LogCaptureFixture) -> None:
    await Script([NOTHING] * 1000).play(1000)
    assert said.messages == ["classic: nothing listens on A:1; waiting"]


async def test_each_change_is_one_line(said: pytest.LogCaptureFixture) -> None:
    await Script([NOTHING, NOTHING, WEB, WEB, WEB, NOTHING, NOTHING]).play(7)
    assert said.messages == [
        f"classic: {NOTHING.text}; waiting",
        f"classic: {WEB.text}; waiting",
        f"classic: {NOTHING.text}; waiting",
    ]


async def test_a_passing_moment_is_not_told(said: pytest.LogCaptureFixture) -> None:
    await Script([NOTHING, NOTHING, FULL, NOTHING, NOTHING]).play(5)
    assert said.messages == [f"classic: {NOTHING.text}; waiting"]


async def test_it_joins_what_waits_at_once_and_only_that(said: pytest.LogCaptureFixture) -> None:
    script = Script([NOTHING, WEB, FULL, MINE, ONE])
    await script.play(5)
    assert script.joins == 1
    assert said.messages[-1] == f"classic: {ONE.text}; joining"


async def test_it_holds_the_worker_while_it_takes_part() -> None:
    script = Script([ONE])
    await script.play(1)
    assert script.holders == [ONE.text]
    assert script.busy.holder is None


async def test_a_worker_that_is_busy_joins_afterwards(said: pytest.LogCaptureFixture) -> None:
    busy = BusyLock()
    busy.take("job x of the fleet")
    script = Script([ONE, ONE, ONE], busy)
    await script.play(2)
    assert script.joins == 0
    assert said.messages == [f"classic: {ONE.text}; first comes: job x of the fleet"]
    busy.free()
    await script.play(1)
    assert script.joins == 1


async def test_a_second_and_a_third_job_are_joined_and_told() -> None:
    script = Script([ONE, FULL, NOTHING, ONE, NOTHING, ONE])
    await script.play(6)
    assert script.joins == 3


async def test_the_same_words_are_told_again_after_a_job(said: pytest.LogCaptureFixture) -> None:
    await Script([NOTHING, NOTHING, ONE, NOTHING, NOTHING]).play(5)
    assert said.messages[-1] == f"classic: {NOTHING.text}; waiting"
    assert len(said.messages) == 3


async def test_node_rank_0_is_torchruns_own(said: pytest.LogCaptureFixture) -> None:
    settings = WorkerSettings(
        name="a", state_dir="/nowhere", cache_dir="/nowhere", master_addr="A", node_rank=0
    )
    with pytest.raises(asyncio.TimeoutError):  # it must not return: that would end the worker
        await asyncio.wait_for(watch(settings, BusyLock(), LOG), 0.05)
    assert "NODE_RANK is 0" in said.text


async def test_files_of_a_worker_that_was_killed_are_cleared(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    stale = tmp_path / "classic" / "job-old"
    stale.mkdir(parents=True)
    settings = WorkerSettings(
        name="a",
        state_dir=str(tmp_path),
        cache_dir=str(tmp_path),
        master_addr="127.0.0.1",
        master_port=unused_tcp_port,
    )
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(watch(settings, BusyLock(), LOG), 0.05)
    assert not stale.exists()


def test_a_relative_state_folder_is_where_the_worker_was_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = WorkerSettings(name="a", state_dir="s", cache_dir="c")
    assert folder_of(settings) == tmp_path / "s" / "classic"
