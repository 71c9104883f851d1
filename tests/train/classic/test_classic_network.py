"""Addresses as seen through the kernel's routes."""

from __future__ import annotations

import socket

import pytest

from llamaforge.errors import FleetError, UserError
from llamaforge.train.classic import network


def test_the_route_to_this_machine_is_the_loopback_address() -> None:
    assert network.address_towards("127.0.0.1") == "127.0.0.1"


def test_a_host_name_on_127_0_1_1_leads_to_a_loopback_address_and_is_known_as_such(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _always("127.0.1.1"))
    assert network.is_loopback(network.address_towards("this-host"))


def test_ipv6_routes_are_found() -> None:
    try:
        assert network.address_towards("::1") == "::1"
    except FleetError:
        pytest.skip("this machine has no IPv6")


def test_an_unknown_name_is_a_fleet_error_with_the_next_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(FleetError, match=r"no route .* to nowhere") as seen:
        network.address_towards("nowhere")
    assert "ip route get nowhere" in seen.value.hint


def test_an_interface_is_obeyed() -> None:
    assert network.interface_address("lo") == "127.0.0.1"
    assert network.own_address("192.0.2.1", {"GLOO_SOCKET_IFNAME": "lo"}) == "127.0.0.1"


def test_an_unknown_interface_is_named() -> None:
    with pytest.raises(UserError, match="'nope0'"):
        network.interface_address("nope0")


def test_one_machine_stays_on_its_loopback_addresses() -> None:
    assert network.agree(["127.0.0.1", "127.0.1.1"], {}) == ["127.0.0.1", "127.0.1.1"]


def test_real_addresses_are_kept() -> None:
    assert network.agree(["10.0.0.1", "10.0.0.2"], {}) == ["10.0.0.1", "10.0.0.2"]


def test_a_first_node_that_knows_itself_as_loopback_takes_the_route_to_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    monkeypatch.setattr(network, "address_towards", lambda host: asked.append(host) or "10.0.0.1")
    agreed = network.agree(["127.0.1.1", "10.0.0.7", "127.0.0.1"], {})
    assert agreed == ["10.0.0.1", "10.0.0.7", "10.0.0.1"]
    assert asked == ["10.0.0.7"]


def _always(address: str) -> object:
    info = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", (address, 9))]
    return lambda *_, **__: info
