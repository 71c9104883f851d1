"""Who may connect to the worker's port: this machine, its coordinator, and whom a setting names.

It decides by the address alone, before a byte is read. That keeps strangers from learning what
runs here and from holding the port's few connections; it is not a login.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable

from llamaforge.spec.networks import Address, Networks, canonical
from llamaforge.worker.own_address import RESOLVE_SECONDS, is_own_address

LOOK_UP_SECONDS = 30.0
"""Names are looked up again when a stranger knocks, at most this often: addresses change."""
LOG_SECONDS = 3600.0
"""One line in the log per stranger in this time."""
MOST_SAID = 256
"""Strangers with a line of their own in that time: who has a /64 has as many addresses as he
likes, and the journal is not his to fill."""

log = logging.getLogger("llamaforge.worker")

LookUp = Callable[[str], Awaitable[set[Address]]]


async def look_up(host: str) -> set[Address]:
    """All addresses of a name or an address; empty, with a line in the log, where it has none."""
    loop = asyncio.get_running_loop()
    try:
        found = await asyncio.wait_for(
            loop.getaddrinfo(host, None, type=socket.SOCK_STREAM), RESOLVE_SECONDS
        )
    except (OSError, UnicodeError, asyncio.TimeoutError) as why:  # UnicodeError: `a..b`
        log.warning("can't look up %s, which may connect here: %s", host, why or "no answer")
        return set()
    return {canonical(str(address[0])) for *_, address in found}


class Guard:
    """Decides about addresses.

    Args:
        allowed: what the setting names.
        hosts: tells the hosts that may always connect: the coordinator's, MASTER_ADDR.
        look_up: finds the addresses of a host.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        allowed: Networks,
        hosts: Callable[[], Iterable[str]],
        *,
        look_up: LookUp = look_up,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allowed, self._hosts = allowed, hosts
        self._look_up, self._clock = look_up, clock
        self._written: set[Address] = set()
        self._found: set[Address] = set()
        self._looked_up = -LOOK_UP_SECONDS
        self._looking: asyncio.Task[None] | None = None
        self._said: OrderedDict[str, float] = OrderedDict()
        self.refused = 0
        """Connections that were refused."""

    def learn(self) -> None:
        """Takes down addresses at once, and looks up names in the background."""
        self._looked_up = self._clock()
        names = list(self._allowed.names)
        self._written = set()
        for host in self._hosts():
            try:
                self._written.add(canonical(host))
            except ValueError:
                names.append(host)
        if names:  # a thread for look-ups is not free: none where addresses are written
            self._looking = asyncio.ensure_future(self._find(names))

    async def learned(self) -> None:
        """Returns when names that are being looked up have been."""
        if self._looking is not None:
            await self._looking

    def change(self, allowed: Networks) -> None:
        """Takes another setting."""
        self._allowed = allowed
        self.close()
        self.learn()

    def allows(self, peer: str) -> bool:
        """Whether an address may connect; counts and logs those that may not."""
        try:
            address = canonical(peer)
        except ValueError:  # the peer is gone again, and with it its address
            return False
        if self.knows(peer):
            return True
        self.refused += 1
        self._say(str(address))
        return False

    def knows(self, peer: str) -> bool:
        """Whether an address may connect."""
        try:
            address = canonical(peer)
        except ValueError:
            return False
        if address.is_loopback or self._knows(address) or is_own_address(str(address)):
            return True
        if self._clock() - self._looked_up < LOOK_UP_SECONDS:
            return False
        self.close()
        self.learn()
        return self._knows(address)

    def close(self) -> None:
        """Ends a look-up that still runs."""
        if self._looking is not None:
            self._looking.cancel()

    def _knows(self, address: Address) -> bool:
        return address in self._written | self._found or self._allowed.covers(address)

    async def _find(self, names: list[str]) -> None:
        found = await asyncio.gather(*(self._look_up(name) for name in names))
        self._found = set().union(*found)

    def _say(self, address: str) -> None:
        now = self._clock()
        while self._said and now - next(iter(self._said.values())) >= LOG_SECONDS:
            self._said.popitem(last=False)
        if address in self._said or len(self._said) > MOST_SAID:
            return
        self._said[address] = now
        if len(self._said) > MOST_SAID:
            log.warning("refused %d strangers lately; the next ones are only counted", MOST_SAID)
            return
        log.warning(
            "refused a connection from %s: it is neither the coordinator's nor in LLAMAFORGE_ALLOW",
            address,
        )
