"""Reloads and the classic way: new settings at once where no job runs, else after it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llamaforge.spec.fleet import WorkerSettings
from llamaforge.worker.busy import BusyLock
from llamaforge.worker.classic.way import ClassicWay
from llamaforge.worker.configuration import Configuration


class FakeVisit:
    def __init__(self, settings: WorkerSettings, *_: object) -> None:
        self.settings = settings
        self.running = False
        self.attended = 0
        self.progress = None


class Worker:
    """A worker that only watches, and the watches that it has begun."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "worker.conf"
        self.configure("a")
        self.configuration = Configuration({}, {}, str(self.config))
        self.busy = BusyLock()
        self.visits: list[FakeVisit] = []
        self.ended: list[str] = []
        self.watch = ClassicWay(self.configuration, self.busy)

    def configure(self, master: str) -> None:
        self.config.write_text(f"MASTER_ADDR={master}\n" if master else "")

    def reload(self, master: str) -> None:
        self.configure(master)
        self.configuration.reload()
        self.watch.reconfigure()

    async def fake_watch(
        self, settings: WorkerSettings, busy: BusyLock, log: logging.Logger, visit: FakeVisit
    ) -> None:
        self.visits.append(visit)
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.append(settings.master_addr or "")


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Worker]:
    made = Worker(tmp_path)
    monkeypatch.setattr("llamaforge.worker.classic.watch.watch", made.fake_watch)
    monkeypatch.setattr("llamaforge.worker.classic.visit.Visit", FakeVisit)
    running = asyncio.ensure_future(made.watch.run())
    await settle()
    yield made
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_an_idle_worker_watches_the_new_address_at_once(worker: Worker) -> None:
    worker.reload("b")
    await settle()
    assert worker.ended == ["a"]
    assert worker.visits[-1].settings.master_addr == "b"


async def test_a_job_is_left_alone_until_its_end(worker: Worker) -> None:
    visit = worker.visits[0]
    worker.busy.take("torchrun waits on a")
    visit.running, visit.attended = True, 1
    worker.reload("b")
    await settle()
    assert worker.ended == []
    visit.running = False
    worker.busy.free()
    await settle()
    assert worker.ended == ["a"]
    assert worker.visits[-1].settings.master_addr == "b"
    assert worker.watch.count == 1
    worker.visits[-1].attended = 2
    assert worker.watch.count == 3


async def test_the_classic_way_can_be_turned_off_and_on(worker: Worker) -> None:
    worker.reload("")
    await settle()
    assert worker.ended == ["a"]
    assert len(worker.visits) == 1
    worker.reload("c")
    await settle()
    assert worker.visits[-1].settings.master_addr == "c"
