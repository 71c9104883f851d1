"""Lists of addresses, networks and names."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.errors import SpecError
from llamaforge.spec.networks import Networks, canonical, parse_networks


def test_a_list_of_all_kinds() -> None:
    found = parse_networks("10.9.66.154, 10.1.2.3/8,fd00::/64, node-1.lan ,,::ffff:192.0.2.0/120")
    assert [str(network) for network in found.networks] == [
        "10.9.66.154/32",
        "10.0.0.0/8",
        "fd00::/64",
        "192.0.2.0/24",
    ]
    assert found.names == ("node-1.lan",)


@pytest.mark.parametrize("text", [None, "", " , "])
def test_nothing_names_nothing(text: str | None) -> None:
    assert parse_networks(text) == Networks()


@pytest.mark.parametrize(
    "part", ["10.9.66", "300.1.1.1", "10.0.0.0/33", "a b", "-x", "x-", "a..b", "::g", "a" * 64, "7"]
)
def test_a_slip_is_named(part: str) -> None:
    with pytest.raises(SpecError, match="the list names") as wrong:
        parse_networks(f"10.0.0.1,{part}")
    assert repr(part) in wrong.value.message


addresses = st.ip_addresses()


@given(st.lists(addresses), addresses)
def test_a_list_of_addresses_covers_those_and_no_other(listed: list, other: object) -> None:  # type: ignore[type-arg]
    found = parse_networks(",".join(map(str, listed)))
    same = {canonical(str(address)) for address in listed}
    assert all(found.covers(address) for address in same)
    assert found.covers(canonical(str(other))) is (canonical(str(other)) in same)


@given(addresses, st.integers(0, 32))
def test_a_network_covers_its_own_addresses(address: object, bits: int) -> None:
    found = parse_networks(f"{address}/{bits}")
    (network,) = found.networks
    assert found.covers(network.network_address)
    assert found.covers(network.broadcast_address)


@given(st.ip_addresses(v=4))
def test_an_address_is_the_same_through_either_family(address: ipaddress.IPv4Address) -> None:
    assert canonical(f"::ffff:{address}") == canonical(str(address)) == address


@given(st.text(st.characters(codec="ascii"), max_size=300))
def test_any_text_is_a_list_or_a_mistake(text: str) -> None:
    try:
        found = parse_networks(text)
    except SpecError:
        return
    parts = [part for part in text.split(",") if part.strip()]
    assert len(found.networks) + len(found.names) == len(parts)
