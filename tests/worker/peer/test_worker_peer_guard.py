"""Who may connect to the worker's port."""

from __future__ import annotations

import pytest

from llamaforge.spec.networks import Address, canonical, parse_networks
from llamaforge.worker.peer.guard import MOST_SAID, Guard, look_up


class Names:
    """A name service and a clock that tests move."""

    def __init__(self) -> None:
        self.addresses = {"coordinator.lan": {"192.0.2.10"}, "node2.lan": {"2001:db8::2"}}
        self.asked: list[str] = []
        self.now = 1000.0

    async def look_up(self, host: str) -> set[Address]:
        self.asked.append(host)
        return {canonical(address) for address in self.addresses.get(host, set())}

    def guard(self, allowed: str = "", hosts: tuple[str, ...] = ("coordinator.lan",)) -> Guard:
        return Guard(
            parse_networks(allowed), lambda: hosts, look_up=self.look_up, clock=lambda: self.now
        )


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.mark.parametrize(
    ("peer", "may"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.10", True),
        ("::ffff:192.0.2.10", True),
        ("198.51.100.77", True),
        ("198.51.101.1", False),
        ("2001:db8::2", True),
        ("2001:db8::3", False),
        ("fe80::1%eth0", False),
        ("192.0.2.11", False),
        ("", False),
    ],
)
async def test_friends_and_strangers(names: Names, peer: str, may: bool) -> None:
    guard = names.guard("198.51.100.0/24, node2.lan")
    guard.learn()
    await guard.learned()
    assert guard.allows(peer) is may
    guard.close()


async def test_this_machine_may_connect_by_any_address_of_its_own(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "llamaforge.worker.peer.guard.is_own_address", lambda address: address == "192.0.2.20"
    )
    guard = names.guard()
    guard.learn()
    await guard.learned()
    assert guard.allows("192.0.2.20")
    assert not guard.allows("192.0.2.21")
    guard.close()


async def test_a_host_that_moves_is_looked_up_when_it_knocks(names: Names) -> None:
    guard = names.guard()
    guard.learn()
    await guard.learned()
    names.addresses["coordinator.lan"] = {"192.0.2.99"}
    assert not guard.allows("192.0.2.99")
    await guard.learned()
    assert names.asked == ["coordinator.lan"], "it was looked up just now"
    names.now += 31
    assert not guard.allows("192.0.2.99")
    await guard.learned()
    assert guard.allows("192.0.2.99")
    assert names.asked == ["coordinator.lan"] * 2


async def test_a_coordinator_that_moves_to_an_address_is_known_at_its_first_knock(
    names: Names,
) -> None:
    hosts = ["192.0.2.50"]
    guard = Guard(parse_networks(""), lambda: hosts, look_up=names.look_up, clock=lambda: names.now)
    guard.learn()
    assert guard.allows("192.0.2.50")
    hosts[:] = ["192.0.2.51"]
    names.now += 31
    assert guard.allows("192.0.2.51")
    assert not guard.allows("192.0.2.50")
    assert names.asked == []


async def test_a_stranger_is_counted_each_time_and_logged_once_in_an_hour(
    names: Names, caplog: pytest.LogCaptureFixture
) -> None:
    guard = names.guard()
    guard.learn()
    await guard.learned()
    for _ in range(5):
        guard.allows("192.0.2.66")
    guard.allows("192.0.2.67")
    names.now += 3601
    guard.allows("192.0.2.66")
    lines = [line for line in caplog.messages if "refused a connection from" in line]
    assert guard.refused == 7
    assert ["192.0.2.66" in line for line in lines] == [True, False, True]
    guard.close()


async def test_a_crowd_of_strangers_fills_neither_the_memory_nor_the_journal(
    names: Names, caplog: pytest.LogCaptureFixture
) -> None:
    guard = names.guard()
    guard.learn()
    await guard.learned()
    for number in range(2000):
        guard.allows(f"198.18.{number // 256}.{number % 256}")
    assert len(guard._said) == MOST_SAID + 1
    assert len(caplog.messages) == MOST_SAID + 1
    assert "only counted" in caplog.messages[-1]
    assert guard.refused == 2000
    names.now += 3601
    guard.allows("198.18.9.9")
    assert "198.18.9.9" in caplog.messages[-1]
    guard.close()


async def test_a_changed_list_counts_at_once(names: Names) -> None:
    guard = names.guard("192.0.2.66")
    guard.learn()
    await guard.learned()
    assert guard.allows("192.0.2.66")
    guard.change(parse_networks("192.0.2.67,node2.lan"))
    assert guard.allows("192.0.2.67")
    assert not guard.allows("192.0.2.66")
    await guard.learned()
    assert guard.allows("2001:db8::2")


async def test_a_name_that_is_not_found_is_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert await look_up("127.0.0.9") == {canonical("127.0.0.9")}
    assert await look_up("does-not-exist.invalid") == set()
    assert "can't look up does-not-exist.invalid" in caplog.text
    assert await look_up("a..b") == set(), "no resolver takes it, and Python raises UnicodeError"
