"""The peer port's TLS side: for nodes of the fleet alone, and bounded in all that they may do."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.identity import contexts, folder
from llamaforge.identity.names import node_host
from llamaforge.wire.endpoint import Endpoint
from llamaforge.wire.ranges import RangeSource
from llamaforge.worker.peer import entrance, secure
from llamaforge.worker.peer.secure import Refused, parse_request
from swarm_rig import Fleet, Node, data_of, fleet_of

DATA = data_of(300_000)
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Fleet, Node, Node]]:
    async with fleet_of(tmp_path, "a", "b") as (fleet, (a, b)):
        a.store.add_bytes(DATA)
        yield fleet, a, b


def connect(to: Node, identity: Path, name: str | None = None) -> ssl.SSLSocket:
    bare = socket.create_connection(("127.0.0.1", to.port), 10)
    return contexts.client(identity).wrap_socket(bare, server_hostname=name or node_host(to.name))


def ask(to: Node, identity: Path, head: str, body: bytes = b"") -> tuple[int, bytes]:
    """One request over a connection of its own. Status 0 where there was no answer."""
    with contextlib.suppress(OSError), connect(to, identity) as peer:
        peer.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        said = b""
        while b"\r\n\r\n" not in said:
            more = peer.recv(65536)
            if not more:
                return 0, said
            said += more
        first, _, rest = said.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", first.lower())[1])  # type: ignore[index]
        while len(rest) < length:
            rest += peer.recv(65536)
        return int(first.split()[1]), rest
    return 0, b""


async def asked(*arguments: object) -> tuple[int, bytes]:
    return await asyncio.to_thread(ask, *arguments)  # type: ignore[arg-type]


# ── what it gives ─────────────────────────────────────────────────────────────────────────────


async def test_blobs_whole_and_in_part(pair: tuple[Fleet, Node, Node]) -> None:
    _, a, b = pair
    get = f"GET /v1/blobs/{DIGEST} HTTP/1.1\nHost: a"
    assert await asked(a, b.identity, get) == (200, DATA)
    assert await asked(a, b.identity, f"{get}\nRange: bytes=0-0") == (206, DATA[:1])
    assert await asked(a, b.identity, f"{get}\nRange: bytes=299990-") == (206, DATA[-10:])
    assert await asked(a, b.identity, f"{get}\nRange: bytes=7-100006") == (206, DATA[7:100007])
    assert (await asked(a, b.identity, get.replace(DIGEST, "0" * 64)))[0] == 404


async def test_links_are_tested_both_ways_by_an_ordinary_client(
    pair: tuple[Fleet, Node, Node],
) -> None:
    _, a, b = pair
    there = Endpoint(host="127.0.0.1", port=a.port, identity=str(b.identity), name=node_host("a"))
    async with there.open() as http:
        async with http.get("/v1/link?bytes=3000000") as answer:
            assert (answer.status, len(await answer.read())) == (200, 3_000_000)
        async with http.post("/v1/link", data=b"x" * 2_000_000) as answer:
            assert answer.status == 200
        async with http.get(f"/v1/blobs/{DIGEST}") as answer:
            assert await answer.read() == DATA


async def test_a_connection_is_kept_and_made_anew(pair: tuple[Fleet, Node, Node]) -> None:
    _, a, b = pair
    there = Endpoint(host="127.0.0.1", port=a.port, identity=str(b.identity), name=node_host("a"))
    source = RangeSource(lambda: there)
    got = bytearray(200)

    def take(offset: int, data: memoryview) -> None:
        got[offset : offset + len(data)] = data

    def read(start: int) -> None:
        source.read(f"/v1/blobs/{DIGEST}", start, 100, take)

    await asyncio.to_thread(read, 0)
    a.secure.stop()  # all connections, from the other side
    await asyncio.to_thread(read, 100)
    assert bytes(got) == DATA[:200]
    source.close()


# ── who is refused ────────────────────────────────────────────────────────────────────────────


def foreign(root: Path) -> Path:
    """An identity of another fleet, with the name of a node of ours."""
    other = Fleet(root / "other")
    return other.identity(node_host("b"), "b")


async def test_whoever_is_no_node_of_the_fleet_gets_nothing(
    pair: tuple[Fleet, Node, Node], tmp_path: Path
) -> None:
    fleet, a, b = pair
    get = f"GET /v1/blobs/{DIGEST} HTTP/1.1\nHost: a"
    expired = fleet.identity(node_host("b"), "old", days=-0.5)
    mixed = tmp_path / "mixed"  # of another authority, and with our authority's certificate beside
    mixed.mkdir()
    theirs = foreign(tmp_path)
    (mixed / folder.IDENTITY).write_bytes(folder.identity_file(theirs).read_bytes())
    (mixed / folder.AUTHORITY).write_bytes(folder.authority_file(b.identity).read_bytes())
    refused = {
        "a person": await asked(a, fleet.person("eve"), get),
        "the coordinator itself": await asked(a, fleet.authority.own_identity(), get),
        "a node that is not in the fleet": await asked(a, fleet.identity(node_host("z"), "z"), get),
        "an expired certificate": await asked(a, expired, get),
        "another authority": await asked(a, mixed, get),
    }
    assert {who: status for who, (status, _) in refused.items() if status not in (0, 403)} == {}
    assert not any(DATA[:1000] in said for _, said in refused.values())
    assert (await asked(a, b.identity, get))[0] == 200


async def test_no_certificate_no_answer(pair: tuple[Fleet, Node, Node]) -> None:
    _, a, b = pair
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(folder.authority_file(b.identity))

    def nameless() -> bytes:
        bare = socket.create_connection(("127.0.0.1", a.port), 10)
        with context.wrap_socket(bare, server_hostname=node_host("a")) as peer:
            peer.sendall(f"GET /v1/blobs/{DIGEST} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            return peer.recv(100)

    with pytest.raises(OSError):
        await asyncio.to_thread(nameless)


async def test_old_tls_is_refused(pair: tuple[Fleet, Node, Node]) -> None:
    _, a, b = pair
    context = contexts.client(b.identity)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def old() -> None:
        bare = socket.create_connection(("127.0.0.1", a.port), 10)
        context.wrap_socket(bare, server_hostname=node_host("a")).close()

    with pytest.raises(OSError):
        await asyncio.to_thread(old)


async def test_a_removed_node_is_refused_on_its_open_connection(
    pair: tuple[Fleet, Node, Node],
) -> None:
    fleet, a, b = pair
    request = b"GET /v1/link?bytes=1 HTTP/1.1\r\nHost: a\r\n\r\n"

    def twice() -> list[bytes]:
        with connect(a, b.identity) as peer:
            peer.sendall(request)
            first = peer.recv(1000)
            while not first.endswith(b"\0"):
                first += peer.recv(1000)
            fleet.members.discard("b")
            peer.sendall(request)
            return [first[:12], peer.recv(1000)[:12]]

    assert await asyncio.to_thread(twice) == [b"HTTP/1.1 200", b"HTTP/1.1 403"]


async def test_a_renewed_certificate_is_shown_without_a_restart(
    pair: tuple[Fleet, Node, Node],
) -> None:
    fleet, a, b = pair

    def serial() -> str:
        with connect(a, b.identity) as peer:
            return str(peer.getpeercert()["serialNumber"])  # type: ignore[index]

    before = await asyncio.to_thread(serial)
    fleet.identity(node_host("a"), "a")
    os.utime(folder.identity_file(a.identity), (1, 1))  # whatever the clock's grain is
    assert await asyncio.to_thread(serial) != before


# ── what is refused ───────────────────────────────────────────────────────────────────────────

WRONG = {
    "a path that climbs": ("GET /v1/blobs/../../etc/passwd HTTP/1.1", 404),
    "a path that climbs, in code": ("GET /v1/blobs/%2e%2e%2f%2e%2e%2fetc%2fpasswd HTTP/1.1", 404),
    "an absolute path": ("GET /v1/blobs//etc/passwd HTTP/1.1", 404),
    "a digest in capitals": (f"GET /v1/blobs/{'A' * 64} HTTP/1.1", 404),
    "a short digest": ("GET /v1/blobs/abc HTTP/1.1", 404),
    "a long digest": (f"GET /v1/blobs/{'a' * 65} HTTP/1.1", 404),
    "a digest with a zero byte": (f"GET /v1/blobs/{'a' * 63}\0 HTTP/1.1", 400),
    "another path": ("GET /metrics HTTP/1.1", 404),
    "the root": ("GET / HTTP/1.1", 404),
    "a URL": ("GET http://example.org/ HTTP/1.1", 400),
    "HTTP/1.0": (f"GET /v1/blobs/{DIGEST} HTTP/1.0", 400),
    "HTTP/2": ("PRI * HTTP/2.0", 400),
    "no version": (f"GET /v1/blobs/{DIGEST}", 400),
    "no request": ("\x01\x02\x03", 400),
    "letters that are not ASCII": ("GET /v1/blobs/ä HTTP/1.1", 400),
    "PUT": (f"PUT /v1/blobs/{DIGEST} HTTP/1.1\nContent-Length: 3", 405),
    "DELETE": (f"DELETE /v1/blobs/{DIGEST} HTTP/1.1", 405),
    "a body for a GET": (f"GET /v1/blobs/{DIGEST} HTTP/1.1\nContent-Length: 3", 400),
    "a chunked body for a GET": (f"GET /v1/blobs/{DIGEST} HTTP/1.1\nTransfer-Encoding: x", 400),
    "two lengths": ("POST /v1/link HTTP/1.1\nContent-Length: 1\nContent-Length: 2", 400),
    "a header with a space": ("GET / HTTP/1.1\nContent-Length : 2", 400),
    "a folded header": ("GET / HTTP/1.1\nA: b\n c", 400),
    "a chunked body": ("POST /v1/link HTTP/1.1\nTransfer-Encoding: chunked", 411),
    "no length": ("POST /v1/link HTTP/1.1", 411),
    "a negative length": ("POST /v1/link HTTP/1.1\nContent-Length: -1", 411),
    "a body without end": ("POST /v1/link HTTP/1.1\nContent-Length: 99999999999", 413),
    "a link test without end": ("GET /v1/link?bytes=99999999999 HTTP/1.1", 400),
    "a link test without size": ("GET /v1/link HTTP/1.1", 400),
    "a negative link test": ("GET /v1/link?bytes=-1 HTTP/1.1", 400),
    "a long line": (f"GET /{'a' * 9000} HTTP/1.1", 431),
    "many headers": ("GET / HTTP/1.1\n" + "\n".join(f"a{n}: b" for n in range(2000)), 431),
    "a range backwards": (f"GET /v1/blobs/{DIGEST} HTTP/1.1\nRange: bytes=9-3", 416),
    "a range beyond": (f"GET /v1/blobs/{DIGEST} HTTP/1.1\nRange: bytes=0-300000", 416),
    "a range far beyond": (f"GET /v1/blobs/{DIGEST} HTTP/1.1\nRange: bytes={10**17}-", 416),
    "a range from the end": (f"GET /v1/blobs/{DIGEST} HTTP/1.1\nRange: bytes=-5", 416),
    "two ranges": (f"GET /v1/blobs/{DIGEST} HTTP/1.1\nRange: bytes=0-1,3-4", 416),
    "a range in another unit": (f"GET /v1/blobs/{DIGEST} HTTP/1.1\nRange: rows=0-1", 416),
    "a range that is no number": (f"GET /v1/blobs/{DIGEST} HTTP/1.1\nRange: bytes=a-b", 416),
    "a range with too many digits": (
        f"GET /v1/blobs/{DIGEST} HTTP/1.1\nRange: bytes=0-{'9' * 40}",
        416,
    ),
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_wrong_request_is_refused(pair: tuple[Fleet, Node, Node], what: str) -> None:
    _, a, b = pair
    head, status = WRONG[what]
    assert (await asked(a, b.identity, head))[0] == status


@given(head=st.binary(max_size=300))
def test_no_head_of_a_request_is_a_crash(head: bytes) -> None:
    with contextlib.suppress(Refused):
        assert parse_request(head).path.startswith("/")


# ── who wants too much ────────────────────────────────────────────────────────────────────────


async def test_a_request_that_dawdles_is_cut_off(
    pair: tuple[Fleet, Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secure, "REQUEST_SECONDS", 0.2)
    _, a, b = pair

    def dawdle() -> bytes:
        with connect(a, b.identity) as peer:
            peer.sendall(b"GET / HT")
            return peer.recv(100)

    assert (await asyncio.to_thread(dawdle)).startswith(b"HTTP/1.1 408")


async def test_a_reader_that_stops_is_cut_off(
    pair: tuple[Fleet, Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secure, "STALL_SECONDS", 0.2)
    _, a, b = pair
    reader = await asyncio.to_thread(connect, a, b.identity)
    await asyncio.to_thread(
        reader.sendall, b"GET /v1/link?bytes=60000000 HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    await until(lambda: not a.secure._open)
    assert a.secure.refused["broken"] == 1
    reader.close()


async def test_a_handshake_that_stops_is_cut_off(
    pair: tuple[Fleet, Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secure, "HANDSHAKE_SECONDS", 0.2)
    _, a, _ = pair
    bare = socket.create_connection(("127.0.0.1", a.port), 10)
    bare.sendall(b"\x16\x03\x01\x02\x00")
    assert await asyncio.to_thread(bare.recv, 100) == b""
    bare.close()


async def test_connections_of_one_are_bounded(
    pair: tuple[Fleet, Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secure, "EACH", 3)
    _, a, b = pair

    def link(peer: ssl.SSLSocket) -> bytes:
        peer.sendall(b"GET /v1/link?bytes=0 HTTP/1.1\r\nHost: a\r\n\r\n")
        return peer.recv(100)[:12]

    def crowd() -> list[bytes]:
        peers = [connect(a, b.identity)]
        said = [link(peers[0])]
        for _ in range(4):
            peers.append(connect(a, b.identity))
            said.append(link(peers[-1]))
        for peer in peers:
            peer.close()
        return said

    assert await asyncio.to_thread(crowd) == [b"HTTP/1.1 200"] * 3 + [b"HTTP/1.1 429"] * 2
    await until(lambda: not a.secure._open)


async def test_silent_connections_of_strangers_are_few_and_do_not_keep_the_fleet_out(
    pair: tuple[Fleet, Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entrance, "MOST_STRANGERS", 5)
    _, a, b = pair
    monkeypatch.setattr(a.entrance._guard, "knows", lambda _: False)

    def crowd() -> list[socket.socket]:
        return [socket.create_connection(("127.0.0.1", a.port), 10) for _ in range(200)]

    idle = await asyncio.to_thread(crowd)
    await until(lambda: a.entrance._guard.refused >= 190)
    assert len(a.entrance._silent) <= 5
    assert sum(thread.name == "peer" for thread in threading.enumerate()) == 0
    for one in idle:
        one.close()
    await until(lambda: not a.entrance._silent)
    assert (await asked(a, b.identity, "GET /v1/link?bytes=3 HTTP/1.1\nHost: a")) == (
        200,
        b"\0" * 3,
    )


async def test_without_an_identity_nothing_speaks_tls(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, "a") as (fleet, (a,)):
        strange = fleet.identity(node_host("b"), "b")
        folder.identity_file(a.identity).unlink()
        assert (await asked(a, strange, "GET /v1/link?bytes=3 HTTP/1.1"))[0] == 0


async def until(condition: object, seconds: float = 10.0) -> None:
    for _ in range(int(seconds / 0.01)):
        if condition():  # type: ignore[operator]
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")
