"""What the probe says about a real torchrun's store, about other servers, and about nothing."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from torch.distributed import TCPStore

from llamaforge.spec import classic
from llamaforge.worker.classic.store_client import StoreClient
from llamaforge.worker.classic.store_probe import Kind, Sighting, describe, look

SHORT = timedelta(seconds=20)
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def look_at(port: int, *, nodes: int = 2, timeout: float = 10.0) -> Sighting:
    return await look("127.0.0.1", port, node_rank=1, world_size=nodes, timeout=timeout)


def master(nodes: int) -> TCPStore:
    """What torchrun's agent makes on the coordinator, after itself has joined."""
    store = TCPStore("127.0.0.1", 0, nodes, True, SHORT, wait_for_workers=False)
    join(store)
    return store


def join(store: TCPStore) -> None:
    TCPStore("127.0.0.1", store.port, 1, False, SHORT)


async def test_nothing_listens(unused_tcp_port: int) -> None:
    seen = await look_at(unused_tcp_port)
    assert seen.kind is Kind.NOTHING
    assert f"nothing listens on 127.0.0.1:{unused_tcp_port}" in seen.text


async def test_an_unknown_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    seen = await look("no-such-host", 29500, node_rank=1, world_size=2)
    assert seen.kind is Kind.NOTHING
    assert seen.text == "the name no-such-host is unknown (Name or service not known)"


async def test_a_machine_without_a_route_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unreachable(*_: object, **__: object) -> None:
        raise OSError(errno.EHOSTUNREACH, "Connect call failed ('10.0.0.1', 29500)")

    monkeypatch.setattr(asyncio, "open_connection", unreachable)
    seen = await look("10.0.0.1", 29500, node_rank=1, world_size=2)
    assert seen.kind is Kind.NOTHING
    assert seen.text == "10.0.0.1:29500 can't be reached (no route to host)"


async def test_an_impossible_name_is_said() -> None:
    seen = await look("a..b", 29500, node_rank=1, world_size=2)
    assert seen.kind is Kind.NOTHING
    assert "'a..b' is no name" in seen.text


async def test_a_store_waits_until_all_nodes_have_joined() -> None:
    store = master(nodes=3)
    assert (await look_at(store.port, nodes=3)).text.endswith("(1 of 3 nodes)")
    join(store)
    waiting = await look_at(store.port, nodes=3)
    assert (waiting.kind, waiting.text[-14:]) == (Kind.WAITING, "(2 of 3 nodes)")
    join(store)
    stalled = await look_at(store.port, nodes=3)
    assert (stalled.kind, "--nnodes larger" in stalled.text) == (Kind.STALLED, True)
    store.set(classic.AGENT_ARRIVED[1:], "{}")
    assert (await look_at(store.port, nodes=3)).kind is Kind.RUNNING


async def test_probes_never_count_as_joined() -> None:
    store = master(nodes=2)
    for _ in range(5):
        assert (await look_at(store.port)).kind is Kind.WAITING


async def test_a_claimed_store_is_not_joined_again_under_the_same_rank() -> None:
    store = master(nodes=3)
    async with await StoreClient.open("127.0.0.1", store.port, timeout=2) as client:
        await client.add(classic.claim(1), 1)
    assert (await look_at(store.port, nodes=3)).kind is Kind.CLAIMED
    other = await look("127.0.0.1", store.port, node_rank=2, world_size=3)
    assert other.kind is Kind.WAITING


async def test_a_torchrun_of_fewer_nodes_is_named() -> None:
    store = master(nodes=2)
    join(store)
    store.set(classic.AGENT_ARRIVED[1:], "{}")
    seen = await look_at(store.port, nodes=3)
    assert seen.kind is Kind.OTHER_SIZE
    assert "2 nodes" in seen.text
    assert "WORLD_SIZE is 3" in seen.text


async def test_a_store_without_a_count_is_no_static_rendezvous() -> None:
    store = TCPStore("127.0.0.1", 0, None, True, SHORT, wait_for_workers=False)
    assert (await look_at(store.port)).kind is Kind.UNCOUNTED


async def test_a_real_torchrun_is_recognised(unused_tcp_port: int) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--node_rank=0"]
    command += ["--master_addr=127.0.0.1", f"--master_port={unused_tcp_port}", "absent.py"]
    agent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        seen = await look_at(unused_tcp_port)
        deadline = asyncio.get_running_loop().time() + 60
        while seen.kind is not Kind.WAITING and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.1)
            seen = await look_at(unused_tcp_port)
        assert seen.kind is Kind.WAITING
        assert seen.text.endswith("(1 of 2 nodes)")
        assert agent.poll() is None
    finally:
        agent.terminate()
        agent.wait(30)


async def serve(
    handler: Handler, context: ssl.SSLContext | None = None
) -> tuple[asyncio.Server, int]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=context)
    return server, server.sockets[0].getsockname()[1]


async def silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def banner(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (silence, "something that stays silent"),
        (hang_up, "something that closes the connection"),
        (banner, "an SSH server (SSH-2.0-OpenSSH_9.2)"),
    ],
)
async def test_other_servers_are_named(handler: Handler, words: str) -> None:
    server, port = await serve(handler)
    seen = await look_at(port, timeout=0.3)
    assert seen.kind is Kind.FOREIGN
    assert words in seen.text
    server.close()


async def test_an_http_server_is_named() -> None:
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    seen = await look_at(server.server_port, timeout=1.0)
    assert seen.kind is Kind.FOREIGN
    assert "an HTTP server (HTTP/1." in seen.text
    server.shutdown()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"\x15\x03\x01\x00\x02", "TLS"),
        (b"220 mail ready\r\nmore", "'220 mail ready'"),
        (b"\n", "''"),
        (b"\x01\xff\xfe\x00\x80", "unknown kind"),
    ],
)
def test_first_bytes_name_a_server(answer: bytes, words: str) -> None:
    assert words in describe(answer, closed=False)


async def absurd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A store in which more nodes have joined than Python can count."""
    writer.write((await reader.readexactly(10))[-4:])
    await reader.read(512)  # CHECK
    count = b"9" * 5000
    writer.write(b"\0" + len(count).to_bytes(8, "little") + count)
    await reader.read()


async def test_an_absurd_count_is_no_count() -> None:
    server, port = await serve(absurd)
    seen = await look_at(port)
    assert seen.kind is Kind.UNCOUNTED
    server.close()
