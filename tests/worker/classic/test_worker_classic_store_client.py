"""The hand-written TCPStore client against torch's own server, both of its backends."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from torch.distributed import PrefixStore, TCPStore

from llamaforge.spec import classic
from llamaforge.worker.classic.store_client import NoStore, StoreClient

SHORT = timedelta(seconds=10)


@pytest.fixture(params=[True, False], ids=["libuv", "legacy"])
def store(request: pytest.FixtureRequest) -> TCPStore:
    return TCPStore("127.0.0.1", 0, 2, True, SHORT, wait_for_workers=False, use_libuv=request.param)


async def client_of(store: TCPStore) -> StoreClient:
    return await StoreClient.open("127.0.0.1", store.port, timeout=20)


async def test_it_reads_what_torch_wrote(store: TCPStore) -> None:
    PrefixStore("llamaforge/0", store).set(classic.REFUSAL, "no")
    async with await client_of(store) as client:
        assert await client.get(classic.raw_refusal()) == b"no"
        assert await client.get("/absent") is None
        assert await client.check([classic.raw_refusal()])
        assert not await client.check([classic.raw_refusal(), "/absent"])


async def test_torch_reads_what_it_wrote(store: TCPStore) -> None:
    async with await client_of(store) as client:
        assert await client.set_first("/word", b"first") == b"first"
        assert await client.set_first("/word", b"second") == b"first"
        assert await client.add("/count", 1) == 1
        assert await client.add("/count", 2) == 3
    assert store.get("word") == b"first"
    assert store.add("count", 1) == 4


async def test_it_finds_where_torch_counts_the_nodes_that_joined(store: TCPStore) -> None:
    async with await client_of(store) as client:
        before = await client.get(classic.JOINED_NODES)
    TCPStore("127.0.0.1", store.port, 1, False, SHORT, wait_for_workers=True)
    async with await client_of(store) as client:
        after = await client.get(classic.JOINED_NODES)
    assert int(after or 0) == int(before or 0) + 1


async def test_looking_changes_nothing(store: TCPStore) -> None:
    store.set("here", "x")
    keys = store.num_keys()
    for _ in range(3):
        async with await client_of(store) as client:
            await client.check(["/here"])
            await client.get(classic.JOINED_NODES)
    assert store.num_keys() == keys


async def test_it_knows_both_ends_of_the_route(store: TCPStore) -> None:
    async with await StoreClient.open("localhost", store.port, timeout=20) as client:
        assert client.local_address in ("127.0.0.1", "::1")
        assert client.store_address in ("127.0.0.1", "::1")


async def test_a_server_that_answers_something_else_is_no_store() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail ready\r\n")
        await writer.drain()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(NoStore) as seen:
        await StoreClient.open("127.0.0.1", port, timeout=2)
    assert seen.value.answer.startswith(b"220 mail")
    server.close()


async def test_a_store_that_goes_away_is_an_os_error() -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeting = await reader.readexactly(10)
        writer.write(greeting[-4:])
        await reader.readexactly(1)
        writer.close()

    server = await asyncio.start_server(die, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = await StoreClient.open("127.0.0.1", port, timeout=2)
    with pytest.raises(OSError):
        await client.get("/any")
    await client.close()
    server.close()
