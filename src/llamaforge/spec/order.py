"""The order of rows: a permutation that is computed, never stored.

Every rank must know which rows belong to which step, at any dataset size and without shuffling a
list in memory. A Feistel network over the next even power of two, walked until the value falls
inside the dataset, gives a bijection of [0, n) in O(1) memory (Black and Rogaway, "Ciphers with
Arbitrary Finite Domains", CT-RSA 2002). Only integer arithmetic is used, so the order is the same
on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

_ROUNDS = 6
_MASK64 = (1 << 64) - 1


class Permutation:
    """A permutation of [0, n) chosen by (seed, epoch).

    Args:
        n: number of rows, at least 1.
        seed: the job's seed.
        epoch: counts from 0; every epoch has its own permutation.
    """

    def __init__(self, n: int, *, seed: int, epoch: int) -> None:
        if n < 1:
            raise ValueError(f"a permutation needs at least one element, not {n}")
        self.n = n
        self._half = max(1, ((n - 1).bit_length() + 1) // 2)
        self._low = (1 << self._half) - 1
        material = hashlib.sha512(f"llamaforge order {seed} {epoch}".encode()).digest()
        self._keys = tuple(
            int.from_bytes(material[8 * r : 8 * r + 8], "little") for r in range(_ROUNDS)
        )

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, position: int) -> int:
        """The row at `position` of the order; raises IndexError outside [0, n)."""
        if not 0 <= position < self.n:
            raise IndexError(f"position {position} is outside [0, {self.n})")
        value = self._encrypt(position)
        while value >= self.n:
            value = self._encrypt(value)
        return value

    def __iter__(self) -> Iterator[int]:
        return (self[position] for position in range(self.n))

    def _encrypt(self, value: int) -> int:
        left, right = value >> self._half, value & self._low
        for key in self._keys:
            left, right = right, left ^ (_mix(right ^ key) & self._low)
        return (left << self._half) | right


def _mix(x: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): 64 bits to 64 bits."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK64
    return x ^ (x >> 31)
