"""Slows down whoever guesses: after a few wrong tries an address waits, longer each time."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

FREE = 5
"""Wrong tries that cost nothing: people mistype."""
FIRST, LONGEST = 1.0, 60.0
"""Seconds to wait after the next one; doubled from the first to the longest."""
FORGET = 600.0
"""Seconds after which an address begins anew."""
MOST = 4096
"""Addresses that are remembered."""


class Throttle:
    """Counts wrong tries by address.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Seconds until an address may try again; 0 when it may."""
        count, last = self._wrong.get(_origin(address), (0, 0.0))
        if count < FREE:
            return 0.0
        pause = min(LONGEST, FIRST * 2.0 ** min(count - FREE, 10))
        return max(0.0, last + pause - self._clock())

    def wrong(self, address: str) -> None:
        """A try was wrong."""
        origin, now = _origin(address), self._clock()
        count, last = self._wrong.pop(origin, (0, now))
        self._wrong[origin] = (1 if now - last > FORGET else count + 1, now)
        while len(self._wrong) > MOST:
            self._wrong.popitem(last=False)


def _origin(address: str) -> str:
    """IPv6 addresses count by their /64: its owner has as many as he likes."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
