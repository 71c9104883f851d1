"""An endpoint: which door it leads to, and whom it believes there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from control import Control, control
from llamaforge.errors import FleetError
from llamaforge.identity.names import COORDINATOR_HOST, node_host, person_host, role_of
from llamaforge.wire import api
from llamaforge.wire.endpoint import Endpoint
from llamaforge.wire.fleet_file import FleetFile


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Control]:
    async with control(tmp_path) as made:
        yield made


def test_a_fleet_file_leads_to_its_socket_first() -> None:
    both = FleetFile(host="10.0.0.1", port=5, socket="/x/control.sock", identity="/x/identity")
    assert Endpoint.of(both) == Endpoint(socket="/x/control.sock")
    remote = FleetFile(host="10.0.0.1", port=5, identity="/x/identity")
    assert Endpoint.of(remote) == Endpoint(host="10.0.0.1", port=5, identity="/x/identity")
    with pytest.raises(FleetError, match="neither socket nor identity"):
        Endpoint.of(FleetFile(host="10.0.0.1", port=5))


def test_where_it_is_for_people() -> None:
    assert Endpoint(host="::1", port=5).url == "https://[::1]:5"
    assert Endpoint(socket="/x").url == "unix:/x"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_any_address_leads_there_and_paths_are_relative(there: Control, host: str) -> None:
    place = msgspec.structs.replace(there.endpoint(there.identity("node", "a")), host=host)
    async with place.open(headers={"X": "y"}) as session, session.get(api.HEALTH) as answer:
        assert await answer.text() == "ok\n"
        assert answer.request_info.headers["X"] == "y"


async def test_whoever_is_asked_for_must_answer(there: Control) -> None:
    place = there.endpoint(there.identity("node", "a"))
    wrong = msgspec.structs.replace(place, name=node_host("b"))
    async with wrong.open() as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(api.HEALTH)


async def test_a_proxy_is_never_taken(there: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    place = there.endpoint(there.identity("node", "a"))
    async with place.open() as session, session.get(api.HEALTH) as answer:
        assert answer.status == 200


async def test_a_socket_that_this_user_may_not_see_names_the_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def closed(_: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "stat", closed)
    with pytest.raises(FleetError, match="may not use /run/x") as error:
        Endpoint(socket="/run/x").open()
    assert "usermod" in error.value.hint


def test_names_and_roles() -> None:
    assert role_of(node_host("Box.rack-1")) == ("node", "Box.rack-1")
    assert role_of(person_host("anna")) == ("person", "anna")
    assert role_of(COORDINATOR_HOST) == ("coordinator", "")
    for stranger in ("example.org", "node.llamaforge.internal", "x.other.llamaforge.internal"):
        assert role_of(stranger) is None
