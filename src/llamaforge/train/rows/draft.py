"""A row's tokens: the finished `Tokens`, and the draft in which they are put together."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tokens:
    """One row, ready to train."""

    ids: NDArray[np.int32]
    """Token ids, int32 [tokens]; never padded."""
    trained: NDArray[np.bool_]
    """bool [tokens]: token i is a target that the loss counts. Token 0 never is: nothing
    precedes it."""
    truncated: bool = False
    """The row was longer than `max_length`; its end is missing."""
    cut: int = 0
    """Tokens that truncation took away; an estimate for texts of many times `max_length`."""
    ended: bool = True
    """At least one end token is trained: the model learns when to stop."""
    last_turn_only: bool = False
    """Earlier answers are not trained, because the chat template rewrites what was said."""

    @property
    def weight(self) -> int:
        """Its tokens, or 0 when none of them is trained: such a row is in no slice."""
        return len(self.ids) if bool(self.trained[1:].any()) else 0


@dataclass(frozen=True)
class Spelled:
    """A text as tokens, each with the characters that it stands for."""

    ids: list[int]
    starts: list[int]
    ends: list[int]

    def over(self, start: int, end: int) -> tuple[int, int]:
        """The tokens, as first and past the last, that hold a character of [start, end)."""
        first = bisect_right(self.ends, start)
        return first, max(first, bisect_left(self.starts, end))


class Draft:
    """A row's tokens while they are put together."""

    def __init__(self, *, whole: int, last_turn_only: bool = False) -> None:
        self.ids: list[int] = []
        self.trained: list[bool] = []
        self.ends: list[int] = []
        """Positions of trained end tokens."""
        self.whole = whole
        """Characters of the row."""
        self.kept = 0
        """Characters that were made into tokens: fewer for a huge row."""
        self.last_turn_only = last_turn_only

    def add(self, ids: Sequence[int], *, trained: bool) -> None:
        """Adds tokens that are all trained, or all not."""
        self.ids.extend(ids)
        self.trained.extend([trained] * len(ids))

    def finish(self, end: int) -> None:
        """Adds an end token that the text doesn't have."""
        self.add([end], trained=True)
        self.ended()

    def ended(self) -> None:
        """Notes that the last token is a trained end token."""
        self.ends.append(len(self.ids) - 1)

    def train_all(self, end: int | None) -> None:
        """Trains every token; each `end` among them is a trained end token."""
        self.trained = [True] * len(self.ids)
        self.ends.extend(place for place, token in enumerate(self.ids) if token == end)

    def done(self, max_length: int) -> Tokens:
        """The row, cut to `max_length` tokens, without the tail that can't change the loss."""
        if self.kept == self.whole and True in self.trained:
            last = len(self.trained) - self.trained[::-1].index(True)
            del self.ids[last:], self.trained[last:]
        trained = np.array(self.trained[:max_length], np.bool_)
        trained[:1] = False
        tokens = len(self.ids)
        if self.kept < self.whole:
            tokens = tokens * self.whole // self.kept
        return Tokens(
            ids=np.array(self.ids[:max_length], np.int32),
            trained=trained,
            truncated=tokens > max_length,
            cut=max(0, tokens - max_length),
            ended=any(0 < place < max_length for place in self.ends),
            last_turn_only=self.last_turn_only,
        )
