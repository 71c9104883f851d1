"""Joining: tokens that are wrong, late, spent, foreign, counted or guessed; and what they give."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from control import Control, ask, control
from llamaforge.coordinator.http.throttle import FREE, LONGEST, Throttle
from llamaforge.errors import FleetError, LlamaForgeError, UserError
from llamaforge.identity import contexts, request
from llamaforge.identity.authority import Authority
from llamaforge.identity.token import JoinToken
from llamaforge.wire import api, join, membership


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Control]:
    async with control(tmp_path) as made:
        yield made


async def token(there: Control, **wish: object) -> JoinToken:
    made = await membership.make_token(there.local, api.TokenWish(**wish))  # type: ignore[arg-type]
    return JoinToken.parse(made.token)


async def come(there: Control, with_: JoinToken, name: str = "n") -> api.Certificate:
    return await join.join("127.0.0.1", there.doors.port, with_, name, request.make())


def events(there: Control, kind: str) -> list[str]:
    there.ledger.flush()
    return [event.what for event in there.ledger.events(kind=kind)]


async def test_a_token_gives_a_certificate_that_is_let_in(there: Control, tmp_path: Path) -> None:
    key = request.make()
    signed = await join.join("127.0.0.1", there.doors.port, await token(there), "n", key)
    join.save(tmp_path / "n", key, signed)
    async with there.endpoint(tmp_path / "n").open() as node:
        assert (await ask(node, "GET", f"{api.BLOBS}/{'0' * 64}"))[0] != 403
    assert events(there, "token") == ["made", "used"]
    assert events(there, "node") == ["joined"]


async def test_a_token_is_used_once(there: Control) -> None:
    spent = await token(there)
    await come(there, spent)
    with pytest.raises(LlamaForgeError, match="used up"):
        await come(there, spent, "second")
    assert there.members.get("node", "second") is None
    assert events(there, "token") == ["made", "used", "refused"]


async def test_a_token_is_used_as_often_as_it_was_made_for(there: Control) -> None:
    counted = await token(there, uses=3)
    for number in range(3):
        await come(there, counted, f"n{number}")
    with pytest.raises(LlamaForgeError, match="used up"):
        await come(there, counted, "n3")


async def test_two_at_once_do_not_share_the_last_use(there: Control) -> None:
    last = await token(there)
    both = await asyncio.gather(
        come(there, last, "a"), come(there, last, "b"), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in both) == ["Certificate", "FleetError"]


async def test_a_request_whose_answer_was_lost_is_answered_again_and_counts_once(
    there: Control,
) -> None:
    counted, key = await token(there, uses=2), request.make()
    first = await join.join("127.0.0.1", there.doors.port, counted, "n", key)
    again = await join.join("127.0.0.1", there.doors.port, counted, "n", key)
    assert first.certificate != again.certificate
    await come(there, counted, "other")
    with pytest.raises(LlamaForgeError, match="used up"):
        await come(there, counted, "third")


async def test_a_replayed_request_does_not_bring_a_removed_node_back(there: Control) -> None:
    counted, key = await token(there, uses=5), request.make()
    await join.join("127.0.0.1", there.doors.port, counted, "n", key)
    there.joining.remove_node("n", "sold", "local:root")
    with pytest.raises(LlamaForgeError, match="removed"):
        await join.join("127.0.0.1", there.doors.port, counted, "n", key)


async def test_a_late_token_is_refused(there: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    short = await token(there, seconds=60)
    later = __import__("time").time() + 61
    monkeypatch.setattr(there.joining._tokens, "_clock", lambda: later)
    with pytest.raises(LlamaForgeError, match="expired at"):
        await come(there, short)


async def test_a_token_with_another_secret_is_refused(there: Control) -> None:
    right = await token(there)
    wrong = msgspec.structs.replace(right, secret="A" * 43)
    unknown = msgspec.structs.replace(right, id="0" * 12)
    for bad in (wrong, unknown):
        with pytest.raises(LlamaForgeError, match="no such token"):
            await come(there, bad)
    await come(there, right)


async def test_a_token_of_another_fleet_is_not_even_sent(
    there: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = JoinToken.make(Authority.open(tmp_path / "other").fingerprint)
    with pytest.raises(UserError, match="not from the coordinator at 127"):
        await come(there, foreign)
    assert events(there, "token") == []  # nothing came
    context = contexts.newcomer(there.authority.certificate)
    wish = api.JoinRequest(token=foreign.text, name="n", request=request.make().request)
    async with there.endpoint().open(context=context) as session:
        status, text = await ask(session, "POST", api.JOIN, msgspec.json.encode(wish))
    assert status == 401
    assert "another fleet" in text


@pytest.mark.parametrize("text", ["", "lf1.x", "Bearer abc", "x" * 100_000])
async def test_what_is_no_token_is_refused_and_not_repeated(there: Control, text: str) -> None:
    context = contexts.newcomer(there.authority.certificate)
    wish = api.JoinRequest(token=text, name="n", request=request.make().request)
    async with there.endpoint().open(context=context) as session:
        status, said = await ask(session, "POST", api.JOIN, msgspec.json.encode(wish))
    assert status == 400
    assert not text or text not in said


async def test_guessing_is_slowed_down(there: Control) -> None:
    right = await token(there)
    wrong = msgspec.structs.replace(right, secret="A" * 43)
    for _ in range(FREE):
        with pytest.raises(LlamaForgeError, match="no such token"):
            await come(there, wrong)
    for guess in (wrong, right):
        with pytest.raises(LlamaForgeError, match=r"too many wrong tokens from 127\.0\.0\.1"):
            await come(there, guess)


def test_the_pause_grows_per_address_and_is_forgotten() -> None:
    now = 1000.0
    throttle = Throttle(lambda: now)
    for _ in range(FREE + 20):
        throttle.wrong("2001:db8::1")
    assert throttle.wait("2001:db8::ffff") == LONGEST  # the same /64
    assert throttle.wait("2001:db8:0:1::1") == 0
    assert throttle.wait("::ffff:10.0.0.1") == throttle.wait("10.0.0.1") == 0
    now += LONGEST
    assert throttle.wait("2001:db8::1") == 0
    now += 1000
    throttle.wrong("2001:db8::1")
    assert throttle.wait("2001:db8::1") == 0


async def test_a_persons_token_names_the_person(there: Control) -> None:
    hers = await token(there, role="person", name="anna")
    signed = await come(there, hers, "root")
    assert signed.name == "anna"
    assert [person.name for person in there.members.people()] == ["anna"]


async def test_a_token_for_one_node_is_no_others(there: Control) -> None:
    named = await token(there, name="n1")
    with pytest.raises(LlamaForgeError, match="for node 'n1', not for 'n2'"):
        await come(there, named, "n2")
    assert (await come(there, named, "n1")).name == "n1"


@pytest.mark.parametrize("name", ["", "a b", "-a", "a..b", "a/b", "x" * 64, "ä", "a\n"])
async def test_a_name_that_fits_no_certificate_is_refused(there: Control, name: str) -> None:
    with pytest.raises(UserError, match="can't be called"):
        await come(there, await token(there), name)


async def test_names_differ_in_more_than_capitals(there: Control) -> None:
    there.identity("node", "Box")
    with pytest.raises(UserError, match="only in capitals"):
        await come(there, await token(there), "box")


async def test_the_local_socket_asks_for_no_token(there: Control) -> None:
    signed = await join.join_here(str(there.doors.socket), "n", request.make())
    assert signed.name == "n"


async def test_no_token_over_tcp_is_no_token(there: Control) -> None:
    context = contexts.newcomer(there.authority.certificate)
    wish = api.JoinRequest(token="", name="n", request=request.make().request)
    async with there.endpoint().open(context=context) as session:
        assert (await ask(session, "POST", api.JOIN, msgspec.json.encode(wish)))[0] == 400


async def test_a_renewal_keeps_the_name_and_changes_the_key(there: Control) -> None:
    home = there.identity("node", "a")
    before = (home / "identity.pem").read_text()
    key = request.make()
    signed = await join.renew(there.endpoint(home), key)
    join.save(home, key, signed)
    assert (home / "identity.pem").read_text() != before
    assert signed.name == "a"
    async with there.endpoint(home).open() as node:
        assert (await ask(node, "GET", f"{api.BLOBS}/{'0' * 64}"))[0] != 403
    assert events(there, "node") == ["joined", "certificate renewed"]


@pytest.mark.parametrize(
    "wish",
    [
        {"uses": 0},
        {"uses": 10**9},
        {"seconds": 0.0},
        {"seconds": 1e9},
        {"role": "person"},
        {"name": "../x"},
    ],
)
async def test_a_token_that_makes_no_sense_is_not_made(
    there: Control, wish: dict[str, object]
) -> None:
    with pytest.raises(UserError):
        await token(there, **wish)


async def test_the_secret_stands_nowhere_in_the_ledger(there: Control, tmp_path: Path) -> None:
    made = await token(there)
    await come(there, made)
    there.ledger.flush()
    for path in (tmp_path / "state").rglob("*"):
        if path.is_file():
            assert made.secret.encode() not in path.read_bytes(), path


async def test_a_coordinator_that_is_none_is_named(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda _, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    wrong = JoinToken.make("0" * 64)
    with pytest.raises(FleetError, match=f"127.0.0.1:{port} can't be reached"):
        await join.join("127.0.0.1", port, wrong, "n", request.make())
    server.close()
