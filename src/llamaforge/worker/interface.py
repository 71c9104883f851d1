"""Which network interface has an address: libraries want its name, and DNS must not be asked.

getifaddrs(3) through ctypes; Python has no call of its own for it.
"""

from __future__ import annotations

import ctypes
import ipaddress
import socket
from collections.abc import Iterator

_FAMILIES = {socket.AF_INET: (4, 4), socket.AF_INET6: (8, 16)}
"""Where the address stands in a socket address, and how long it is; bytes."""


class _IfAddrs(ctypes.Structure):
    pass


_IfAddrs._fields_ = [
    ("next", ctypes.POINTER(_IfAddrs)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
]


def interface_of(address: str) -> str:
    """The name of the interface with this IP address; empty where there is none."""
    try:
        wanted = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    return next((name for name, found in addresses() if found == wanted), "")


def addresses() -> Iterator[tuple[str, ipaddress.IPv4Address | ipaddress.IPv6Address]]:
    """All interfaces' names with their IP addresses. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    first = ctypes.POINTER(_IfAddrs)()
    if libc.getifaddrs(ctypes.byref(first)) != 0:
        raise OSError(ctypes.get_errno(), "getifaddrs")
    try:
        entry = first
        while entry:
            one = entry.contents
            if one.address:
                family = ctypes.c_ushort.from_address(one.address).value
                if family in _FAMILIES:
                    offset, length = _FAMILIES[socket.AddressFamily(family)]
                    packed = ctypes.string_at(one.address + offset, length)
                    yield one.name.decode(), ipaddress.ip_address(packed)
            entry = one.next
    finally:
        libc.freeifaddrs(first)
