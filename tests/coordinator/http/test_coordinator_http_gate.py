"""The gate: who is let in by certificate or local socket, to what, and who is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from control import Control, ask, control, issue
from llamaforge.coordinator.http import doors, gate
from llamaforge.coordinator.http.gate import Caller
from llamaforge.identity import contexts, folder, request, trouble
from llamaforge.identity.authority import Authority, new_epoch
from llamaforge.identity.names import COORDINATOR_HOST
from llamaforge.wire import api
from llamaforge.wire.messages import Hello, Welcome
from llamaforge.wire.refused import REFUSAL

JOB = f"{api.JOBS}/x"
CHECKPOINT = f"{JOB}/checkpoints/step-00000001"
OF_PEOPLE = [
    ("GET", api.STATUS),
    ("POST", api.MISSING),
    ("PUT", f"{api.BLOBS}/{'0' * 64}"),
    ("POST", api.JOBS),
    ("GET", api.JOBS),
    ("GET", JOB),
    ("POST", f"{JOB}/stop"),
    ("GET", f"{JOB}/stream"),
    ("GET", f"{JOB}/files"),
    ("GET", api.EVENTS),
    ("POST", f"{api.NODES}/a"),
]
OF_NODES = [
    ("GET", api.WORKERS),
    ("PUT", f"{JOB}/artifacts/a"),
    ("POST", CHECKPOINT),
    ("PUT", f"{CHECKPOINT}/a"),
    ("POST", f"{CHECKPOINT}/accept"),
]
OF_BOTH = [("GET", f"{api.BLOBS}/{'0' * 64}"), ("POST", api.RENEW)]
LOCAL_ONLY = [
    ("POST", api.TOKENS),
    ("GET", api.PEOPLE),
    ("DELETE", f"{api.PEOPLE}/bob"),
]
EVERYTHING = [*OF_PEOPLE, *OF_NODES, *OF_BOTH, *LOCAL_ONLY]


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Control]:
    async with control(tmp_path) as made:
        yield made


async def status_of(session: aiohttp.ClientSession, method: str, path: str) -> int:
    return (await ask(session, method, path, b"" if method in ("POST", "PUT") else None))[0]


async def test_health_is_open_to_all(there: Control) -> None:
    context = contexts.newcomer(there.authority.certificate)
    async with there.endpoint().open(context=context) as stranger:
        assert await ask(stranger, "GET", api.HEALTH) == (200, "ok\n")


async def test_nothing_else_without_a_certificate(there: Control) -> None:
    context = contexts.newcomer(there.authority.certificate)
    async with there.endpoint().open(context=context) as stranger:
        for method, path in EVERYTHING:
            assert await status_of(stranger, method, path) == 401, (method, path)
        async with stranger.get(api.STATUS) as answer:
            assert "llamaforge worker join" in answer.headers[REFUSAL]


async def test_a_node_may_only_what_nodes_do(there: Control) -> None:
    async with there.endpoint(there.identity("node", "a")).open() as node:
        for method, path in [*OF_PEOPLE, *LOCAL_ONLY]:
            assert await status_of(node, method, path) == 403, (method, path)
        for method, path in [*OF_NODES, *OF_BOTH]:
            assert await status_of(node, method, path) not in (401, 403), (method, path)


async def test_a_person_is_no_worker_and_makes_no_tokens(there: Control) -> None:
    async with there.endpoint(there.identity("person", "anna")).open() as person:
        for method, path in [*OF_NODES, *LOCAL_ONLY]:
            assert await status_of(person, method, path) == 403, (method, path)
        for method, path in [*OF_PEOPLE, *OF_BOTH]:
            assert await status_of(person, method, path) not in (401, 403), (method, path)


@pytest.mark.parametrize("kind", ["node", "person"])
async def test_a_certificate_of_another_authority_is_turned_away(
    there: Control, tmp_path: Path, kind: str
) -> None:
    other = Authority.open(tmp_path / "other")
    home = issue(other, tmp_path / "foreign", kind, "a")  # type: ignore[arg-type]
    theirs = folder.authority_file(home)
    theirs.write_text(there.authority.certificate)  # it trusts us; we don't trust it
    async with there.endpoint(home).open() as foreign:
        with pytest.raises((aiohttp.ClientError, OSError)) as error:
            await ask(foreign, "GET", api.STATUS)
    assert "another fleet" in str(trouble.explain(error.value))


async def test_an_expired_certificate_is_turned_away(there: Control) -> None:
    old = there.identity("node", "a", days=-0.5)  # it began a day ago and ended since
    async with there.endpoint(old).open() as late:
        with pytest.raises((aiohttp.ClientError, OSError)) as error:
            await ask(late, "GET", api.WORKERS)
    assert "timedatectl" in str(trouble.explain(error.value))


async def test_a_node_of_our_authority_that_never_joined_is_refused(there: Control) -> None:
    async with there.endpoint(there.forge("node", "ghost")).open() as ghost:
        assert await status_of(ghost, "GET", api.WORKERS) == 403


async def test_a_node_does_not_pass_for_the_coordinator(there: Control, tmp_path: Path) -> None:
    """Who has a node's key and the coordinator's address is not believed by the others."""
    home = there.identity("node", "evil")
    server = await asyncio.start_server(
        lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=contexts.server(home, required=False)
    )
    port = server.sockets[0].getsockname()[1]
    victim = msgspec.structs.replace(
        there.endpoint(there.identity("node", "victim")), host="127.0.0.1", port=port
    )
    async with victim.open() as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError) as error:
            await ask(session, "GET", api.HEALTH)
    assert "names somebody else" in str(trouble.explain(error.value))
    server.close()


async def test_a_certificate_that_names_the_coordinator_gives_nothing(there: Control) -> None:
    made = request.make()
    signed = there.authority.issue(COORDINATOR_HOST, made.request, epoch=new_epoch(), server=True)
    home = there.root / "odd"
    folder.save(
        home,
        key=made.key,
        certificate=signed.certificate,
        authority=there.authority.certificate,
    )
    async with there.endpoint(home).open() as odd:
        assert await status_of(odd, "GET", api.STATUS) == 401


async def connected(there: Control, session: aiohttp.ClientSession, name: str) -> object:
    socket = await session.ws_connect(api.WORKERS)
    hello = Hello(node=name, identity="i", session="s", cores=1, memory=1)
    await socket.send_str(msgspec.json.encode(hello).decode())
    answer = await socket.receive_str(timeout=5)
    assert isinstance(msgspec.json.decode(answer, type=Welcome), Welcome)
    return socket


async def test_a_removed_node_is_cut_off_at_once_and_stays_out(there: Control) -> None:
    home = there.identity("node", "a")
    async with there.endpoint(home).open() as node:
        socket = await connected(there, node, "a")
        there.joining.remove_node("a", "sold", "local:root")
        closed = await socket.receive(timeout=5)  # type: ignore[attr-defined]
        assert closed.type in (
            aiohttp.WSMsgType.CLOSED,
            aiohttp.WSMsgType.CLOSE,
            aiohttp.WSMsgType.ERROR,
        )
        with pytest.raises(aiohttp.WSServerHandshakeError) as error:
            await node.ws_connect(api.WORKERS)
        assert error.value.status == 403
        assert error.value.headers is not None
        assert "node a was removed" in error.value.headers[REFUSAL]
        renewal = msgspec.json.encode(api.RenewRequest(request=request.make().request))
        assert (await ask(node, "POST", api.RENEW, renewal))[0] == 403


async def test_a_removed_node_is_still_out_after_a_restart(tmp_path: Path) -> None:
    async with control(tmp_path) as first:
        home = first.identity("node", "a")
        first.joining.remove_node("a", "sold", "local:root")
        await first.ledger.settled()
    async with control(tmp_path) as again, again.endpoint(home).open() as node:
        assert await status_of(node, "GET", api.WORKERS) == 403


async def test_a_withdrawn_person_is_cut_off_in_the_middle_of_a_stream(there: Control) -> None:
    home = there.identity("person", "anna")
    async with there.endpoint(home).open() as person, there.local.open() as local:
        assert await status_of(person, "GET", api.STATUS) == 200
        assert await status_of(local, "DELETE", f"{api.PEOPLE}/anna?reason=left") == 200
        assert await status_of(person, "GET", api.STATUS) == 403
        assert (await ask(local, "GET", api.PEOPLE))[1].count('"withdrawn":true') == 1


async def test_who_joined_anew_is_refused_with_the_certificate_from_before(there: Control) -> None:
    old, new = there.identity("node", "a"), there.identity("node", "a", days=9)
    async with there.endpoint(old).open() as before, there.endpoint(new).open() as now:
        assert await status_of(before, "GET", api.WORKERS) == 403
        assert await status_of(now, "GET", f"{api.BLOBS}/{'0' * 64}") != 403


async def test_old_tls_is_not_spoken(there: Control) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=there.authority.certificate)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with there.endpoint().open(context=context) as old:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await ask(old, "GET", api.HEALTH)


@pytest.mark.parametrize("said", [b"", b"GET /health HTTP/1.1\r\nHost: x\r\nX: "])
async def test_who_asks_for_nothing_leaves_soon(
    there: Control, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(doors, "FIRST_REQUEST_SECONDS", 0.05)
    context = contexts.newcomer(there.authority.certificate)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", there.doors.port, ssl=context, server_hostname=COORDINATOR_HOST
    )
    writer.write(said)
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    assert there.doors.newcomers == set()


async def test_who_has_asked_for_something_stays(
    there: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "FIRST_REQUEST_SECONDS", 0.05)
    async with there.endpoint(there.identity("node", "a")).open() as node:
        socket = await connected(there, node, "a")
        with pytest.raises(asyncio.TimeoutError):
            await socket.receive(timeout=0.3)  # type: ignore[attr-defined]


async def test_plain_http_is_told_apart_in_the_log(
    there: Control, caplog: pytest.LogCaptureFixture
) -> None:
    async with aiohttp.ClientSession() as old:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await old.get(f"http://127.0.0.1:{there.doors.port}{api.STATUS}")
    assert "older worker" in caplog.text


async def test_the_coordinators_user_may_do_everything_here(there: Control) -> None:
    async with there.local.open() as local:
        for method, path in EVERYTHING:
            assert await status_of(local, method, path) not in (401, 403), (method, path)


async def test_other_users_of_the_machine_are_refused(
    there: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Caller, "own", property(lambda _: False))
    monkeypatch.setattr(gate, "service_group", lambda: None)
    async with there.local.open() as local:
        assert await status_of(local, "GET", api.STATUS) == 403
        assert "neither root nor" in (await ask(local, "GET", api.STATUS))[1]


async def test_members_of_the_services_group_are_let_in_but_no_ranks(
    there: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Caller, "own", property(lambda _: False))
    monkeypatch.setattr(gate, "service_group", os.getegid)
    monkeypatch.setattr(gate, "_user", lambda _: "anna")
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    async with there.local.open() as local:
        assert await status_of(local, "GET", api.STATUS) == 200
        monkeypatch.setattr(gate, "_user", lambda _: gate.WORKER_USER)
        assert await status_of(local, "GET", api.STATUS) == (200 if os.getuid() == 0 else 403)


def test_only_its_owner_can_use_the_socket(tmp_path: Path) -> None:
    async def look() -> int:
        async with control(tmp_path) as there:
            return there.doors.socket.stat().st_mode & 0o777

    assert asyncio.run(look()) == 0o600


def test_a_long_path_gives_a_socket_elsewhere_that_is_found_again(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)

    async def look() -> Path:
        async with control(deep) as there, there.local.open() as local:
            assert await status_of(local, "GET", api.STATUS) == 200
            return there.doors.socket

    first = asyncio.run(look())
    assert len(str(first)) <= 107
    assert asyncio.run(look()) == first
    assert first.parent.stat().st_mode & 0o777 == 0o700
    first.parent.rmdir()


@pytest.mark.parametrize("asker", ["rank", "worker", "gone"])
def test_what_runs_below_a_worker_gives_no_orders(
    asker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = socket.socketpair()
    own = struct.pack("3i", os.getpid(), 4711, 4711)
    monkeypatch.setattr(gate, "_user", lambda _: "llamaforge" if asker == "worker" else "anna")
    monkeypatch.setattr(gate, "_own_cgroup", lambda: "0::/elsewhere")
    unit = "0::/system.slice/llamaforge-worker.service/ranks"
    monkeypatch.setattr(gate, "_cgroup", lambda _: unit if asker == "rank" else "")
    if asker == "gone":

        def gone(_: int) -> str:
            raise FileNotFoundError

        monkeypatch.setattr(gate, "_cgroup", gone)
    monkeypatch.setattr(gate, "_credentials", lambda _: tuple(struct.unpack("3i", own)))
    with left, right, pytest.raises(gate.Refused, match="below a worker"):
        gate._by_credentials(left)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a process other groups")
@pytest.mark.parametrize("many", [3, 250])
def test_the_kernel_tells_the_groups_of_who_has_connected(tmp_path: Path, many: int) -> None:
    path, groups = tmp_path / "s", list(range(70000, 70000 + many))
    code = "import os, socket, sys; os.setgroups(eval(sys.argv[1])); s = socket.socket(1); "
    code += "s.connect(sys.argv[2]); s.recv(1)"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(path))
        listening.listen()
        child = subprocess.Popen([sys.executable, "-c", code, str(groups), str(path)])
        with child, listening.accept()[0] as stream:
            assert gate._groups(stream, "root", 0) == groups
