"""The rows that were used last, in memory, within a bound of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict

from llamaforge.train.rows.tokens import Tokens


class Recent:
    """Keeps what was put last; forgets what was used longest ago. For several threads.

    Args:
        most: bytes of token ids and masks.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._rows: OrderedDict[int, Tokens] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, row: int) -> Tokens | None:
        """The tokens of `row`, if they are still here."""
        with self._lock:
            found = self._rows.get(row)
            if found is not None:
                self._rows.move_to_end(row)
            return found

    def put(self, row: int, tokens: Tokens) -> None:
        """Keeps the tokens of `row`, and forgets others to stay within the bound."""
        with self._lock:
            if row in self._rows:
                return
            self._rows[row] = tokens
            self._held += _size(tokens)
            while self._held > self._most:
                _, old = self._rows.popitem(last=False)
                self._held -= _size(old)


def _size(tokens: Tokens) -> int:
    return tokens.ids.nbytes + tokens.trained.nbytes
