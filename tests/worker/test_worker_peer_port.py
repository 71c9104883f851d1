"""The worker's own port: what it tells, and which ports it leaves alone."""

from __future__ import annotations

import socket

import aiohttp
import pytest

from llamaforge.errors import UserError
from llamaforge.spec.fleet import WorkerSettings
from llamaforge.worker.peer_port import Figures, PeerPort, is_here, prometheus, reserved_ports

FIGURES = Figures(connected=True, busy="job x", ranks=2, jobs=5)


def settings(**fields: object) -> WorkerSettings:
    return WorkerSettings(name="a", state_dir="/x", cache_dir="/y", **fields)  # type: ignore[arg-type]


async def test_health_and_metrics() -> None:
    port = PeerPort(settings(peer_port=0), lambda: FIGURES)
    await port.start("127.0.0.1")
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port.port}") as http:
        async with http.get("/health") as answer:
            assert (await answer.json())["ranks"] == 2
        async with http.get("/metrics") as answer:
            assert "llamaforge_worker_jobs_total 5\n" in await answer.text()
        async with http.get("/else") as answer:
            assert answer.status == 404
    await port.stop()


def test_the_metrics_have_help_and_type() -> None:
    text = prometheus(FIGURES)
    for name in ("connected", "busy", "ranks", "jobs_total"):
        assert f"# TYPE llamaforge_worker_{name} " in text
    assert text.endswith("\n")


async def test_a_taken_port_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "llamaforge.worker")
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        port = PeerPort(settings(peer_port=taken), lambda: FIGURES)
        await port.start("127.0.0.1")
        assert port.port > taken
        await port.stop()
    assert f"({taken} is in use)" in caplog.text


async def test_an_address_of_another_machine_is_refused() -> None:
    port = PeerPort(settings(peer_host="192.0.2.1"), lambda: FIGURES)
    with pytest.raises(UserError, match=r"192\.0\.2\.1:29501"):
        await port.start("127.0.0.1")


@pytest.mark.parametrize(
    ("fields", "coordinator", "reserved"),
    [
        ({"master_addr": "127.0.0.1"}, "192.0.2.1", {29500}),
        ({"master_addr": "127.0.1.1", "master_port": 31000}, "192.0.2.1", {29500, 31000}),
        ({"master_addr": "192.0.2.1"}, "127.0.0.1", set()),
        ({}, "127.0.0.1", {29500}),
        ({}, None, {29500}),
        ({}, "192.0.2.1", set()),
    ],
)
async def test_the_classic_stores_port_stays_free_on_its_host(
    fields: dict[str, object], coordinator: str | None, reserved: set[int]
) -> None:
    assert await reserved_ports(settings(**fields), coordinator) == reserved


@pytest.mark.parametrize(
    ("host", "here"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("192.0.2.1", False)],
)
async def test_own_addresses_are_known(host: str, here: bool) -> None:
    assert await is_here(host) is here
