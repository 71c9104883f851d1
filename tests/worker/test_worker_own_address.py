"""Which hosts and addresses are this machine's."""

from __future__ import annotations

import pytest

from llamaforge.worker.own_address import is_here, is_own_address


@pytest.mark.parametrize(
    ("host", "here"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("192.0.2.1", False)],
)
async def test_own_addresses_are_known(host: str, here: bool) -> None:
    assert await is_here(host) is here


def test_only_addresses_are_told_without_looking_up() -> None:
    assert is_own_address("127.0.0.1")
    assert not is_own_address("192.0.2.1")
    with pytest.raises(ValueError, match="localhost"):
        is_own_address("localhost")


async def test_a_name_that_no_resolver_takes_may_be_here() -> None:
    assert await is_here("a..b")
