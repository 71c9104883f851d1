"""Speaks enough of torch's TCPStore protocol to look into a store without importing torch.

A worker must stay small while it waits, so it can't use `torch.distributed.TCPStore`. The protocol
is undocumented but simple; what stands here was read off the wire of torch 2.13 and is compared
with a real TCPStore by the tests (both of its backends). All integers are little-endian:

    connection  VALIDATE, uint32 magic
    PING        uint32 nonce                      -> the nonce
    CHECK       uint64 count, strings             -> one byte: 0 all there, 1 not
    GET         string                            -> uint64 length, bytes (only for keys that exist)
    ADD         string, int64                     -> int64: the new value
    COMPARE_SET string, expected, wished          -> the value that stands afterwards
    string      uint64 length, bytes

Nothing here counts as joining: only a client that adds to `init/` does that.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Awaitable, Sequence
from typing import TypeVar

_VALIDATE, _COMPARE_SET, _GET, _ADD, _CHECK, _PING = 0, 2, 3, 4, 5, 13
_MAGIC = 0x3C85F7CE
_T = TypeVar("_T")
_LONGEST = 1 << 20  # bytes of a value; nothing that a worker reads is near that


class NoStore(Exception):
    """What listens there is no TCPStore.

    Args:
        answer: the bytes that it sent instead; empty when it said nothing.
        closed: whether it closed the connection.
    """

    def __init__(self, answer: bytes, *, closed: bool) -> None:
        super().__init__(f"not a TCPStore: {answer[:32]!r}")
        self.answer = answer
        self.closed = closed


class StoreClient:
    """One connection to a TCPStore. Every call takes at most `timeout` seconds.

    Calls raise `OSError` when the store goes away, and `TimeoutError` (one of them) when it stops
    answering.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout: float
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._timeout = timeout

    @classmethod
    async def open(cls, host: str, port: int, *, timeout: float) -> StoreClient:
        """Connects and makes sure that a TCPStore answers.

        Raises:
            OSError: nothing listens, or the name is unknown (`socket.gaierror`).
            TimeoutError: the machine does not answer.
            NoStore: something else listens.
        """
        reader, writer = await _within(asyncio.open_connection(host, port), timeout)
        client = cls(reader, writer, timeout)
        try:
            await client._greet()
        except BaseException:
            await client.close()
            raise
        return client

    async def close(self) -> None:
        """Closes the connection; the store forgets it."""
        self._writer.close()
        try:
            await _within(self._writer.wait_closed(), self._timeout)
        except OSError:  # reset by the other side: closed is closed
            return

    async def __aenter__(self) -> StoreClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def local_address(self) -> str:
        """This machine's address on the route to the store."""
        return str(self._writer.get_extra_info("sockname")[0])

    @property
    def store_address(self) -> str:
        """The numeric address that the store was reached at."""
        return str(self._writer.get_extra_info("peername")[0])

    async def check(self, keys: Sequence[str]) -> bool:
        """Whether all of these raw keys exist."""
        names = b"".join(_string(key) for key in keys)
        await self._send(bytes([_CHECK]) + struct.pack("<Q", len(keys)) + names)
        return (await self._read(1)) == b"\0"

    async def get(self, key: str) -> bytes | None:
        """The value of a raw key, or None when it doesn't exist."""
        if not await self.check([key]):
            return None
        await self._send(bytes([_GET]) + _string(key))
        return await self._value()

    async def add(self, key: str, amount: int) -> int:
        """Adds to a counter and returns its new value; atomic across all clients."""
        await self._send(bytes([_ADD]) + _string(key) + struct.pack("<q", amount))
        return int(struct.unpack("<q", await self._read(8))[0])

    async def set_first(self, key: str, value: bytes) -> bytes:
        """Sets a key that does not exist yet; returns the value that stands afterwards."""
        await self._send(bytes([_COMPARE_SET]) + _string(key) + _bytes(b"") + _bytes(value))
        return await self._value()

    async def _greet(self) -> None:
        nonce = os.urandom(4)
        await self._send(struct.pack("<BI", _VALIDATE, _MAGIC) + bytes([_PING]) + nonce)
        answer = b""
        try:
            while len(answer) < len(nonce):
                piece = await _within(self._reader.read(512), self._timeout)
                if not piece:
                    raise NoStore(answer, closed=True)
                answer += piece
        except TimeoutError:
            raise NoStore(answer, closed=False) from None
        except ConnectionResetError:
            raise NoStore(answer, closed=True) from None
        if answer != nonce:
            raise NoStore(answer, closed=False)

    async def _value(self) -> bytes:
        (length,) = struct.unpack("<Q", await self._read(8))
        if length > _LONGEST:
            raise ConnectionResetError(f"a TCPStore announced a value of {length} bytes")
        return await self._read(length)

    async def _send(self, data: bytes) -> None:
        self._writer.write(data)
        await _within(self._writer.drain(), self._timeout)

    async def _read(self, count: int) -> bytes:
        try:
            return await _within(self._reader.readexactly(count), self._timeout)
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the store closed the connection") from error


def _string(text: str) -> bytes:
    return _bytes(text.encode())


def _bytes(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


async def _within(work: Awaitable[_T], seconds: float) -> _T:
    """Waits at most so long. Raises the built-in TimeoutError, which is an OSError."""
    try:
        return await asyncio.wait_for(work, seconds)
    except asyncio.TimeoutError as error:  # not the built-in one before Python 3.11
        raise TimeoutError(f"no answer within {seconds:g} s") from error
