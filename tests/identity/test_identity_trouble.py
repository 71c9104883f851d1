"""Why TLS failed, in words: the clock, the fleet, the certificate; tried on real handshakes."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509

from control import issue
from llamaforge.identity import contexts, folder, request
from llamaforge.identity.authority import Authority, new_epoch
from llamaforge.identity.names import COORDINATOR_HOST
from llamaforge.identity.trouble import explain
from llamaforge.wire.endpoint import Endpoint


async def meet(server: ssl.SSLContext | None, client: Path) -> str | None:
    """What a client is told that dials such a server."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server)
    port = listening.sockets[0].getsockname()[1]
    try:
        async with Endpoint(host="127.0.0.1", port=port, identity=str(client)).open() as session:
            await session.get("/", timeout=aiohttp.ClientTimeout(total=5))
    except (aiohttp.ClientError, OSError) as why:
        return explain(why, now=0.0)
    finally:
        listening.close()
    return None


def coordinator(authority: Authority, home: Path, days: float) -> ssl.SSLContext:
    made = request.make()
    signed = authority.issue(
        COORDINATOR_HOST, made.request, epoch=new_epoch(), server=True, days=days
    )
    folder.save(
        home,
        key=made.key,
        certificate=signed.certificate,
        authority=authority.certificate,
    )
    return contexts.server(home, required=False)


async def test_a_good_pair_meets(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path / "authority")
    client = issue(authority, tmp_path / "a", "node", "a")
    assert await meet(coordinator(authority, tmp_path / "c", 9), client) is None


async def test_a_certificate_that_is_over_names_the_clock(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path / "authority")
    client = issue(authority, tmp_path / "a", "node", "a")
    said = await meet(coordinator(authority, tmp_path / "c", -0.5), client)
    assert said is not None
    assert "expired, or the clock is wrong: here it is 1970-01-01 00:00 UTC" in said
    assert "timedatectl" in said


async def test_a_clock_that_is_behind_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate that begins tomorrow is what a clock that is days behind sees."""
    from datetime import timedelta

    from llamaforge.identity import authority as module

    authority = Authority.open(tmp_path / "authority")
    client = issue(authority, tmp_path / "a", "node", "a")
    monkeypatch.setattr(module, "BACKDATED", timedelta(days=-1))
    said = await meet(coordinator(authority, tmp_path / "c", 9), client)
    assert said is not None
    assert "not valid yet, or the clock is wrong" in said


async def test_another_fleet_is_named(tmp_path: Path) -> None:
    ours, other = Authority.open(tmp_path / "ours"), Authority.open(tmp_path / "other")
    client = issue(ours, tmp_path / "a", "node", "a")
    said = await meet(coordinator(other, tmp_path / "c", 9), client)
    assert said is not None
    assert "another fleet" in said


async def test_what_speaks_no_tls_is_named(tmp_path: Path) -> None:
    client = issue(Authority.open(tmp_path / "authority"), tmp_path / "a", "node", "a")

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    listening = await asyncio.start_server(plain, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    with pytest.raises((aiohttp.ClientError, OSError)) as error:
        async with Endpoint(host="127.0.0.1", port=port, identity=str(client)).open() as session:
            await session.get("/")
    listening.close()
    assert "doesn't speak TLS" in str(explain(error.value))


def test_what_is_not_tls_is_left_to_others() -> None:
    assert explain(ConnectionRefusedError(111, "no")) is None
    assert explain(None) is None


def test_a_certificate_says_only_its_name(tmp_path: Path) -> None:
    home = issue(Authority.open(tmp_path / "authority"), tmp_path / "a", "node", "Box-1.rack")
    signed = x509.load_pem_x509_certificate(folder.identity_file(home).read_bytes())
    assert signed.subject.rfc4514_string() == "CN=Box-1.rack.node.llamaforge.internal"
