"""Whether a host or an address is this machine itself."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket

RESOLVE_SECONDS = 5.0


async def is_here(host: str) -> bool:
    """Whether a host name or address is this machine's; True where that can't be found out."""
    with contextlib.suppress(ValueError):  # a name: it has to be looked up
        return is_own_address(host)
    loop = asyncio.get_running_loop()
    try:
        found = await asyncio.wait_for(
            loop.getaddrinfo(host, None, type=socket.SOCK_DGRAM), RESOLVE_SECONDS
        )
    except (OSError, UnicodeError, asyncio.TimeoutError):  # UnicodeError: `a..b`
        return True
    return any(_bindable(family, address) for family, _, _, _, address in found)


def is_own_address(address: str) -> bool:
    """Whether an IP address is this machine's. Raises ValueError for a name."""
    version = ipaddress.ip_address(address).version
    return _bindable(socket.AF_INET if version == 4 else socket.AF_INET6, (address,))


def _bindable(family: int, address: tuple[object, ...]) -> bool:
    """Only an address of this machine can be bound."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address[0], 0, *address[2:]))
        except OSError:
            return False
    return True
