"""Where the coordinator is, as settings and fleet files tell it."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from control import issue
from llamaforge.errors import FleetError
from llamaforge.identity.authority import Authority
from llamaforge.spec.fleet import WorkerSettings
from llamaforge.wire import fleet_file
from llamaforge.wire.fleet_file import FleetFile
from llamaforge.wire.messages import Hello
from llamaforge.worker import link
from llamaforge.worker.enrol import find_coordinator
from llamaforge.worker.link import Link


def settings(root: Path, **fields: object) -> WorkerSettings:
    return WorkerSettings(name="a", state_dir=str(root), cache_dir="/y", **fields)  # type: ignore[arg-type]


def write(path: Path, **fields: object) -> None:
    base = {"host": "127.0.0.1", "port": 1, "pid": 1}
    fleet_file.write(path, FleetFile(**{**base, **fields}))  # type: ignore[arg-type]


def test_the_fleet_file_is_read_anew(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match=r"no fleet file at .*fleet\.json yet"):
        find_coordinator(settings(tmp_path))
    for port in (1, 2):
        write(tmp_path / "fleet.json", port=port)
        assert find_coordinator(settings(tmp_path)).port == port


def test_a_coordinator_on_the_line_wins_over_the_file(tmp_path: Path) -> None:
    write(tmp_path / "else.json")
    found = find_coordinator(
        settings(tmp_path, fleet=str(tmp_path / "else.json"), coordinator="10.0.0.1:5")
    )
    assert (found.host, found.port) == ("10.0.0.1", 5)
    assert found.identity == str(tmp_path / "identity")


async def test_a_coordinator_that_says_nothing_is_dialled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "GREETING_SECONDS", 0.05)
    twice = asyncio.Event()
    dialled: list[asyncio.StreamWriter] = []

    def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled.append(writer)
        if len(dialled) == 2:
            twice.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    write(tmp_path / "fleet.json", port=server.sockets[0].getsockname()[1])

    async def enrolled(_: WorkerSettings, *, refused: bool) -> None:
        issue(Authority.open(tmp_path / "authority"), tmp_path / "identity", "node", "a")

    monkeypatch.setattr(link, "enrol", enrolled)
    worker = Link(
        lambda: settings(tmp_path),
        hello=lambda _: Hello(node="a", identity="i", session="s", cores=1, memory=1),
        heard=lambda _: None,
        abandoned=lambda: None,
    )
    task = asyncio.ensure_future(worker.run())
    try:
        await asyncio.wait_for(twice.wait(), 10)
    finally:
        task.cancel()
        for writer in dialled:
            writer.close()
        server.close()


async def test_a_missing_certificate_is_said_aloud_though_torchrun_is_awaited_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    both = settings(tmp_path, coordinator="10.0.0.1", master_addr="10.0.0.2")
    worker = Link(
        lambda: both,
        hello=lambda _: Hello(node="a", identity="i", session="s", cores=1, memory=1),
        heard=lambda _: None,
        abandoned=lambda: None,
    )
    with caplog.at_level(logging.INFO, "llamaforge.worker"):
        task = asyncio.ensure_future(worker.run())
        while not worker.said:
            await asyncio.sleep(0)
        task.cancel()
    assert "a has not joined the fleet of 10.0.0.1" in caplog.text
