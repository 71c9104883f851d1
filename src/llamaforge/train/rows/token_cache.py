"""Tokens on disk, shared by all ranks of a node and kept between jobs.

    KEY/index            32 bytes a row: which segment, where in it, how long, and a digest
    KEY/segment-000001   tokens, appended by one process and read by all

Every process appends to a segment of its own and then writes the row's slot in the index, so that
no lock between processes is needed. Two of them may write the same slot: both say the truth. The
digest covers row, slot and tokens: a torn write, a power cut or a flipped bit is a row that is not
there, and is made again.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
from pathlib import Path

import numpy as np

from llamaforge.train.rows.tokens import Tokens

_SLOT = struct.Struct("<IIQ16s")
"""Segment number (0: nothing here), bytes, offset in the segment, digest."""

_PLACE = struct.Struct("<QIIQ")
"""What the digest covers before the tokens: row, segment, bytes, offset."""

_HEAD = struct.Struct("<BQI")
"""Flags, tokens that truncation took away, number of tokens."""

_TRUNCATED, _ENDED, _LAST_TURN_ONLY = 1, 2, 4


class TokenCache:
    """The tokens of one dataset under one tokenizer and template.

    May be used from several threads and processes. A disk that is full or gone is no error: rows
    are then simply not kept, and `problem` says why.

    Args:
        folder: this dataset's own folder; made if missing.
        max_length: most tokens of a row; a slot that claims more is damaged.
    """

    def __init__(self, folder: Path, *, max_length: int) -> None:
        self.folder = folder
        self.problem: str | None = None
        """Why rows are not kept any more; None while all is well."""
        self._most = _HEAD.size + 4 * max_length + (max_length + 7) // 8
        self._lock = threading.Lock()
        self._segments: dict[int, int] = {}
        self._own = 0
        self._end = 0
        self._index: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._index = os.open(folder / "index", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            self._give_up(error)

    def holds(self, row: int) -> bool:
        """Whether there is something for `row`; only `get` says whether it is sound."""
        with self._lock:
            return self._slot(row) is not None

    def get(self, row: int) -> Tokens | None:
        """The tokens of `row`, or None where they are missing or damaged."""
        with self._lock:
            slot = self._slot(row)
            payload = self._read(slot) if slot else None
        if slot is None or payload is None or _digest(row, slot, payload) != slot[3]:
            return None
        return _unpack(payload)

    def put(self, row: int, tokens: Tokens) -> None:
        """Keeps the tokens of `row` for later and for other processes."""
        payload = _pack(tokens)
        with self._lock:
            if self._index is None or self.problem:
                return
            try:
                self._append(self._index, row, payload)
            except OSError as error:
                self._give_up(error)

    def close(self) -> None:
        """Closes all files; nothing is kept or found afterwards."""
        with self._lock:
            for descriptor in (*self._segments.values(), self._index):
                if descriptor is not None:
                    os.close(descriptor)
            self._segments.clear()
            self._index, self._own = None, 0

    def _slot(self, row: int) -> tuple[int, int, int, bytes] | None:
        if self._index is None:
            return None
        raw = os.pread(self._index, _SLOT.size, row * _SLOT.size)
        if len(raw) < _SLOT.size:
            return None
        segment, length, offset, digest = _SLOT.unpack(raw)
        sound = segment and _HEAD.size <= length <= self._most and offset < 1 << 62
        return (segment, length, offset, digest) if sound else None

    def _read(self, slot: tuple[int, int, int, bytes]) -> bytes | None:
        segment, length, offset, _ = slot
        try:
            if segment not in self._segments:
                flags = os.O_RDONLY | os.O_CLOEXEC
                self._segments[segment] = os.open(self._path(segment), flags)
            return os.pread(self._segments[segment], length, offset)
        except OSError:
            return None

    def _append(self, index: int, row: int, payload: bytes) -> None:
        if not self._own:
            self._own = self._new_segment()
        slot = (self._own, len(payload), self._end, b"")
        _write(self._segments[self._own], payload, self._end)
        self._end += len(payload)
        _write(index, _SLOT.pack(*slot[:3], _digest(row, slot, payload)), row * _SLOT.size)

    def _new_segment(self) -> int:
        """Makes a segment that no other process has."""
        number = 1
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        while True:
            try:
                self._segments[number] = os.open(self._path(number), flags, 0o644)
            except FileExistsError:
                number += 1
            else:
                return number

    def _path(self, segment: int) -> Path:
        return self.folder / f"segment-{segment:06d}"

    def _give_up(self, error: OSError) -> None:
        self.problem = f"tokens are not kept in {self.folder}: {error.strerror}"


def _write(descriptor: int, data: bytes, offset: int) -> None:
    written = os.pwrite(descriptor, data, offset)
    if written != len(data):
        raise OSError(28, "No space left on device")


def _digest(row: int, slot: tuple[int, int, int, bytes], payload: bytes) -> bytes:
    place = _PLACE.pack(row, *slot[:3])
    return hashlib.blake2b(place + payload, digest_size=16).digest()


def _pack(tokens: Tokens) -> bytes:
    flags = (
        _TRUNCATED * tokens.truncated
        + _ENDED * tokens.ended
        + _LAST_TURN_ONLY * tokens.last_turn_only
    )
    head = _HEAD.pack(flags, tokens.cut, len(tokens.ids))
    ids = tokens.ids.astype("<i4", copy=False)
    return head + ids.tobytes() + np.packbits(tokens.trained, bitorder="little").tobytes()


def _unpack(payload: bytes) -> Tokens:
    flags, cut, count = _HEAD.unpack_from(payload)
    bits = np.frombuffer(payload, np.uint8, offset=_HEAD.size + 4 * count)
    return Tokens(
        ids=np.frombuffer(payload, "<i4", count, _HEAD.size).astype(np.int32),
        trained=np.unpackbits(bits, count=count, bitorder="little").astype(np.bool_),
        truncated=bool(flags & _TRUNCATED),
        cut=cut,
        ended=bool(flags & _ENDED),
        last_turn_only=bool(flags & _LAST_TURN_ONLY),
    )
