"""Connections take little memory each, and carry much nevertheless."""

from __future__ import annotations

import asyncio
from asyncio import sslproto
from pathlib import Path

import pytest

from control import issue
from llamaforge.identity import contexts
from llamaforge.identity.authority import Authority
from llamaforge.identity.buffers import BYTES, small_buffers
from llamaforge.identity.names import node_host

MUCH = bytes(range(256)) * 20_000


@pytest.mark.skipif(
    not hasattr(sslproto.SSLProtocol, "max_size"), reason="before Python 3.11 there is no buffer"
)
async def test_a_connection_takes_little_and_carries_much(tmp_path: Path) -> None:
    small_buffers()
    home = issue(Authority.open(tmp_path / "authority"), tmp_path / "a", "node", "a")

    async def send(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(MUCH)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(send, "127.0.0.1", 0, ssl=contexts.server(home))
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=contexts.client(home), server_hostname=node_host("a")
    )
    assert len(writer.transport._ssl_protocol._ssl_buffer) == BYTES  # type: ignore[attr-defined]
    assert await reader.read(-1) == MUCH
    writer.close()
    server.close()
