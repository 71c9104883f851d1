"""Smaller buffers for TLS: asyncio takes 256 KiB for each connection, in use or not.

A fleet of thousands of workers, or a crowd of idle strangers, would cost gigabytes. A TLS record
has 16 KiB at most, so a few of them are enough.
"""

from __future__ import annotations

from asyncio import sslproto

BYTES = 32 << 10


def small_buffers() -> None:
    """From now on each new connection of this process takes less; does nothing before Python 3.11,
    whose connections have no such buffer."""
    if hasattr(sslproto.SSLProtocol, "max_size"):
        sslproto.SSLProtocol.max_size = BYTES
