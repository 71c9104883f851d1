"""Another machine of the fleet: how people name it, and by whom it was named."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple


class Host(NamedTuple):
    """Another machine of the fleet, as somebody named it."""

    name: str
    """A host name or an address."""
    port: int
    named_by: str
    """The setting or option that names it."""

    @property
    def speaks_tls(self) -> bool:
        """Whether that port is a coordinator's, which speaks TLS."""
        return self.named_by == "LLAMAFORGE_COORDINATOR"

    @classmethod
    def parse(cls, text: str, port: int, named_by: str) -> Host:
        """`HOST`, `HOST:PORT`, `[V6]:PORT` or a bare IPv6 address.

        Args:
            text: what a person wrote; never refused here, since LF111 names what is wrong.
            port: where none is written, or no number.
            named_by: the setting or option.
        """
        if text.startswith("["):
            name, _, rest = text[1:].partition("]")
            return cls(name, port_in(rest.lstrip(":"), port), named_by)
        name, colon, rest = text.rpartition(":")
        if colon and ":" not in name:
            return cls(name, port_in(rest, port), named_by)
        return cls(text, port, named_by)


def port_in(text: str, default: int) -> int:
    """The port that a text is; the default where it is none."""
    return int(text) if text.isdecimal() and int(text) < 65536 else default


def is_address(text: str) -> bool:
    """Whether a text is an IP address, and no name to look up."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
