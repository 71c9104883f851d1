"""The worker's own port: what it tells, and which ports it leaves alone."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import msgspec
import pytest

from llamaforge.errors import UserError
from llamaforge.spec.fleet import WorkerSettings
from llamaforge.worker.peer.door import origin
from llamaforge.worker.peer.guard import Guard
from llamaforge.worker.peer.port import Figures, PeerPort, prometheus, reserved_ports

FIGURES = Figures(connected=True, busy="job x", ranks=2, jobs=5)


def settings(**fields: object) -> WorkerSettings:
    return WorkerSettings(name="a", state_dir="/x", cache_dir="/y", **fields)  # type: ignore[arg-type]


async def test_health_and_metrics() -> None:
    port = PeerPort(settings(peer_port=0), lambda: FIGURES, lambda: "127.0.0.1")
    await port.start()
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
        port = PeerPort(settings(peer_port=taken), lambda: FIGURES, lambda: "127.0.0.1")
        await port.start()
        assert port.port > taken
        await port.stop()
    assert f"({taken} is in use)" in caplog.text


async def test_an_address_of_another_machine_is_refused() -> None:
    port = PeerPort(settings(peer_host="192.0.2.1"), lambda: FIGURES, lambda: "127.0.0.1")
    with pytest.raises(UserError, match=r"192\.0\.2\.1:29501"):
        await port.start()


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


# ── what it tells ─────────────────────────────────────────────────────────────────────────────

TRAINING = Figures(
    connected=True,
    busy="job x",
    ranks=2,
    jobs=5,
    ready=True,
    status="job x step 120/960",
    job="x",
    generation=3,
    step=120,
    versions={"python": "3.12.1", "torch": 'a"b'},
)


async def get(port: PeerPort, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    session = aiohttp.ClientSession(f"http://{host}:{port.port}")
    async with session as http, http.get(path) as answer:
        return answer.status, await answer.text()


async def test_health_tells_versions_status_and_job() -> None:
    port = PeerPort(settings(peer_port=0), lambda: TRAINING, lambda: "127.0.0.1")
    await port.start()
    status, text = await get(port, "/health")
    said = msgspec.json.decode(text)
    assert (status, said["ready"], said["status"]) == (200, True, "job x step 120/960")
    assert (said["job"], said["generation"], said["step"]) == ("x", 3, 120)
    assert said["versions"]["python"] == "3.12.1"
    await port.stop()


def test_the_metrics_tell_step_and_versions() -> None:
    text = prometheus(TRAINING, refused=7)
    assert "llamaforge_worker_step 120\n" in text
    assert "llamaforge_worker_refused_total 7\n" in text
    assert 'llamaforge_worker_info{python="3.12.1",torch="a\\"b"} 1\n' in text
    assert "worker_step" not in prometheus(FIGURES)


# ── who may connect ───────────────────────────────────────────────────────────────────────────


class Elsewhere(Guard):
    """A guard for which a loopback address is another machine's."""

    known: frozenset[str] = frozenset()

    def allows(self, peer: str) -> bool:
        self.refused += peer not in self.known
        return peer in self.known


async def refused(port: int) -> bool:
    """Whether a connection ends with a reset, though a request was sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        await writer.drain()
        await reader.read()
    except ConnectionResetError:
        return True
    else:
        return False
    finally:
        writer.close()


async def test_a_stranger_is_reset_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamaforge.worker.peer.port.Guard", Elsewhere)
    port = PeerPort(settings(peer_port=0), lambda: FIGURES)
    await port.start()
    assert await refused(port.port)
    monkeypatch.setattr(Elsewhere, "known", frozenset({"127.0.0.1"}))
    _, text = await get(port, "/metrics")
    assert "llamaforge_worker_refused_total 1\n" in text
    await port.stop()


async def test_there_is_room_for_so_many_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamaforge.worker.peer.port.CONNECTIONS", 2)
    port = PeerPort(settings(peer_port=0), lambda: FIGURES)
    await port.start()
    held = [await asyncio.open_connection("127.0.0.1", port.port) for _ in range(2)]
    assert await refused(port.port)
    for _, writer in held:
        writer.close()
        await writer.wait_closed()
    while port._open:
        await asyncio.sleep(0)
    assert (await get(port, "/health"))[0] == 200
    await port.stop()


async def test_nobody_can_keep_the_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamaforge.worker.peer.port.EACH", 2)
    port = PeerPort(settings(peer_port=0), lambda: FIGURES)
    await port.start()
    held = [await asyncio.open_connection("127.0.0.1", port.port) for _ in range(2)]
    assert await refused(port.port)
    monkeypatch.setattr("llamaforge.worker.peer.door.origin", lambda _: "192.0.2.1")
    assert (await get(port, "/health"))[0] == 200
    for _, writer in held:
        writer.close()
    await port.stop()


def test_users_of_this_machine_count_as_one() -> None:
    assert origin("127.0.0.1") == origin("127.9.9.9") == origin("::1")
    assert origin("::ffff:192.0.2.1") == origin("192.0.2.1") == "192.0.2.1"


async def test_who_dawdles_is_shown_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamaforge.worker.peer.door.STAY_SECONDS", 0.05)
    port = PeerPort(settings(peer_port=0), lambda: FIGURES)
    await port.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port.port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: ")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    await port.stop()


async def test_what_is_not_http_leaves_no_traceback_in_the_journal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = PeerPort(settings(peer_port=0), lambda: FIGURES, lambda: "192.0.2.1")
    await port.start()
    for nonsense in (b"\0" * 100 + b"\r\n\r\n", b"GET /health HTTP/1.1\r\n\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port.port)
        writer.write(nonsense)
        assert b"400" in await reader.readline()
        writer.close()
    await port.stop()
    assert caplog.text == ""


async def test_a_bug_in_an_answer_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Figures:
        raise ZeroDivisionError

    port = PeerPort(settings(peer_port=0), broken, lambda: "192.0.2.1")
    await port.start()
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{port.port}") as http,
        http.get("/health") as answer,
    ):
        assert answer.status == 500
    await port.stop()
    assert "ZeroDivisionError" in caplog.text


async def test_a_line_without_end_is_refused() -> None:
    port = PeerPort(settings(peer_port=0), lambda: FIGURES)
    await port.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port.port)
    writer.write(b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n")
    assert (await reader.read(12)) == b"HTTP/1.0 400"
    writer.close()
    await port.stop()


async def test_all_addresses_are_served_where_it_listens_on_all() -> None:
    port = PeerPort(settings(peer_port=0, peer_host="::"), lambda: FIGURES)
    await port.start()
    assert (await get(port, "/health"))[0] == 200
    if socket.has_dualstack_ipv6():
        assert (await get(port, "/health", "[::1]"))[0] == 200
    await port.stop()


async def test_without_ipv6_it_listens_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    port = PeerPort(settings(peer_port=0, peer_host="::"), lambda: FIGURES)
    await port.start()
    assert (await get(port, "/health"))[0] == 200
    await port.stop()


async def test_a_taken_port_is_passed_over_on_all_addresses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        port = PeerPort(
            settings(peer_port=taken, peer_host="::"), lambda: FIGURES, lambda: "127.0.0.1"
        )
        await port.start()
        assert port.port > taken
        await port.stop()


def test_a_list_that_names_no_network_is_refused() -> None:
    with pytest.raises(UserError, match=r"LLAMAFORGE_ALLOW names '10\.9\.66'"):
        PeerPort(settings(allow="10.9.66"), lambda: FIGURES)


async def test_a_reload_changes_who_may_connect() -> None:
    port = PeerPort(settings(peer_port=0, allow="192.0.2.1"), lambda: FIGURES)
    await port.start()
    assert port._guard.allows("192.0.2.1")
    port.reconfigure(settings(peer_port=0, allow="192.0.2.2"))
    assert port._guard.allows("192.0.2.2")
    assert not port._guard.allows("192.0.2.1")
    await port.stop()
