"""Links are measured in parallel, believed for a while, and told in words where they fail."""

from __future__ import annotations

import asyncio
import errno

import pytest

from llamaforge.errors import FleetError
from llamaforge.wire.messages import LinkSpeed, Peer
from llamaforge.worker.link_test import AT_ONCE, GOOD_FOR, LinkTest, Measured


def peer(name: str, port: int = 29500) -> Peer:
    return Peer(node=name, address=f"10.0.0.{ord(name[0]) - 96}", port=port)


class FakeDialler:
    """Links of which some fail."""

    def __init__(self) -> None:
        self.errors: dict[str, list[Exception]] = {}
        self.dialled: list[str] = []
        self.now = self.most = 0

    async def measure(self, peer: Peer) -> Measured:
        self.dialled.append(peer.node)
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        if self.errors.get(peer.node):
            raise self.errors[peer.node].pop(0)
        return Measured(round_trip=0.001, bytes_per_second=1e8)


class World:
    def __init__(self) -> None:
        self.dialler, self.time = FakeDialler(), 1000.0
        self.test = LinkTest(self.dialler, lambda: self.time, pause=0.0)

    async def links(self, *names: str) -> dict[str, LinkSpeed]:
        found = await self.test.measure([peer(name) for name in names], own="a")
        return {link.node: link for link in found}


async def test_everybody_but_oneself_is_measured_several_at_a_time() -> None:
    world = World()
    names = "abcdefghijklmnop"
    found = await world.links(*names)
    assert sorted(found) == list(names[1:])
    assert all(link.ok and link.bytes_per_second == 1e8 for link in found.values())
    assert 1 < world.dialler.most <= AT_ONCE


async def test_those_without_a_peer_port_are_passed_over() -> None:
    world = World()
    assert await world.test.measure([peer("b", port=0)], own="a") == ()


async def test_a_good_link_is_believed_for_a_while_and_its_age_is_told() -> None:
    world = World()
    await world.links("b")
    world.time += GOOD_FOR - 1
    assert (await world.links("b"))["b"].age == GOOD_FOR - 1
    assert world.dialler.dialled == ["b"]
    world.time += 1
    assert (await world.links("b"))["b"].age == 0
    assert world.dialler.dialled == ["b", "b"]


async def test_one_that_fails_is_tried_again_at_once_and_at_the_next_time() -> None:
    world = World()
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    world.dialler.errors["b"] = [refused]
    assert (await world.links("b"))["b"].ok
    world = World()
    world.dialler.errors["b"] = [refused, refused]
    assert not (await world.links("b"))["b"].ok
    assert (await world.links("b"))["b"].ok


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "no worker listens there"),
        (OSError(errno.EHOSTUNREACH, "x"), "no route to host: a firewall rejects it"),
        (asyncio.TimeoutError(), "a firewall drops connections"),
        (FleetError("the identity is broken"), "the identity is broken"),
        (OSError("odd"), "odd"),
    ],
)
async def test_the_words_for_a_broken_link(error: Exception, words: str) -> None:
    world = World()
    world.dialler.errors["b"] = [error, error]
    link = (await world.links("b"))["b"]
    assert (link.ok, link.address) == (False, "10.0.0.2:29500")
    assert words in link.error


async def test_addresses_of_ipv6_are_written_as_such() -> None:
    world = World()
    found = await world.test.measure([Peer(node="b", address="fd00::7", port=1)], own="a")
    assert found[0].address == "[fd00::7]:1"
