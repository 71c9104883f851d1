"""How a worker gets its certificate by itself, and when it asks a person."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from control import Control, ask, control
from llamaforge.errors import FleetError, LlamaForgeError
from llamaforge.identity import folder
from llamaforge.identity.validity import validity_of
from llamaforge.spec.fleet import WorkerSettings
from llamaforge.wire import api, fleet_file, membership
from llamaforge.wire.fleet_file import FleetFile
from llamaforge.worker import renewal
from llamaforge.worker.enrol import enrol, find_coordinator, identity_of


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Control]:
    async with control(tmp_path / "c") as made:
        yield made


def settings(root: Path, **fields: object) -> WorkerSettings:
    base = {"name": "n", "state_dir": str(root / "worker"), "cache_dir": "/x"}
    return WorkerSettings(**{**base, **fields})  # type: ignore[arg-type]


def by_file(there: Control, root: Path, **fields: object) -> WorkerSettings:
    path = root / "fleet.json"
    fleet_file.write(
        path,
        FleetFile(
            host="127.0.0.1",
            port=there.doors.port,
            socket=str(there.doors.socket),
            authority=there.authority.fingerprint,
        ),
    )
    return settings(root, fleet=str(path), **fields)


async def by_token(there: Control, root: Path, **fields: object) -> WorkerSettings:
    made = await membership.make_token(there.local, api.TokenWish())
    (root / "token").write_text(made.token + "\n")
    where = f"127.0.0.1:{there.doors.port}"
    return settings(root, coordinator=where, token_file=str(root / "token"), **fields)


async def let_in(worker: WorkerSettings) -> bool:
    async with find_coordinator(worker).open() as node:
        return (await ask(node, "GET", f"{api.BLOBS}/{'0' * 64}"))[0] == 422


async def test_next_door_no_token_is_needed(there: Control, tmp_path: Path) -> None:
    worker = by_file(there, tmp_path)
    await enrol(worker)
    assert await let_in(worker)
    before = folder.identity_file(identity_of(worker)).read_text()
    await enrol(worker)
    assert folder.identity_file(identity_of(worker)).read_text() == before


async def test_a_token_is_spent_once_and_then_left_alone(there: Control, tmp_path: Path) -> None:
    worker = await by_token(there, tmp_path)
    await enrol(worker)
    assert await let_in(worker)
    await enrol(worker)  # the service is started again, and the token's file is still there
    await enrol(worker, refused=True)  # and once more: this token is the one that it came by
    assert [event.what for event in there.ledger.events(kind="token")] == ["made", "used"]


async def test_a_removed_node_comes_back_with_a_new_token(there: Control, tmp_path: Path) -> None:
    worker = await by_token(there, tmp_path)
    await enrol(worker)
    there.joining.remove_node("n", "sold", "me")
    assert not await let_in(worker)
    await enrol(worker, refused=True)
    assert not await let_in(worker)
    await enrol(await by_token(there, tmp_path), refused=True)
    assert await let_in(worker)


async def test_a_removed_node_next_door_does_not_let_itself_in_again(
    there: Control, tmp_path: Path
) -> None:
    worker = by_file(there, tmp_path)
    await enrol(worker)
    there.joining.remove_node("n", "noisy", "me")
    with pytest.raises(FleetError, match="node n was removed"):
        await enrol(worker, refused=True)


async def test_a_new_name_is_a_new_node(there: Control, tmp_path: Path) -> None:
    await enrol(by_file(there, tmp_path))
    await enrol(by_file(there, tmp_path, name="other"))
    assert [member.name for member in there.members.all("node")] == ["n", "other"]


async def test_another_fleet_next_door_is_joined_anew(there: Control, tmp_path: Path) -> None:
    worker = by_file(there, tmp_path)
    async with control(tmp_path / "d") as other:
        await enrol(by_file(other, tmp_path))
        assert await let_in(by_file(other, tmp_path))
    worker = by_file(there, tmp_path)
    await enrol(worker)
    assert await let_in(worker)


@pytest.mark.parametrize("file", [None, "/nowhere/token", "empty"])
async def test_without_certificate_and_token_the_command_is_said(
    tmp_path: Path, file: str | None
) -> None:
    if file == "empty":
        (tmp_path / "empty").write_text("")
        file = str(tmp_path / "empty")
    with pytest.raises(FleetError, match=r"sudo llamaforge worker join 10\.0\.0\.9:29400"):
        await enrol(settings(tmp_path, coordinator="10.0.0.9:29400", token_file=file))


async def test_a_token_file_with_something_else_is_named_but_not_shown(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("geheim-of-the-fleet\n")
    worker = settings(tmp_path, coordinator="10.0.0.9", token_file=str(tmp_path / "token"))
    with pytest.raises(LlamaForgeError, match="not a join token") as error:
        await enrol(worker)
    assert str(tmp_path / "token") in error.value.message
    assert "geheim" not in str(error.value)


async def test_it_is_renewed_after_a_third_of_its_life(there: Control, tmp_path: Path) -> None:
    worker = by_file(there, tmp_path)
    await enrol(worker)
    home, where = identity_of(worker), find_coordinator(worker)
    valid = validity_of(home)
    assert not renewal.is_due(home, valid.renewal() - 1)
    assert renewal.is_due(home, valid.renewal())
    before = folder.identity_file(home).read_text()
    await renewal.renew(where)
    after = folder.identity_file(home).read_text()
    assert before.splitlines()[1] != after.splitlines()[1], "a new key"
    assert folder.about(home).name == "n"
    assert await let_in(worker)


async def test_a_renewal_that_fails_leaves_the_old_one(there: Control, tmp_path: Path) -> None:
    worker = by_file(there, tmp_path)
    await enrol(worker)
    there.joining.remove_node("n", "sold", "me")
    before = folder.identity_file(identity_of(worker)).read_text()
    with pytest.raises(FleetError, match="removed"):
        await renewal.renew(find_coordinator(worker))
    gone = msgspec.structs.replace(find_coordinator(worker), port=1)
    with pytest.raises(FleetError, match="can't be reached"):
        await renewal.renew(gone)
    assert folder.identity_file(identity_of(worker)).read_text() == before
