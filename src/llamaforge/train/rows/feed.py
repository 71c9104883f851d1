"""The tokens of every row: from memory, from disk, or made now; and made ahead while training runs.

Training starts on its first rows at once. Meanwhile one thread makes the tokens of later rows in
the order in which they will be needed, and puts them on disk, not in memory; the next job on the
same rows finds them there. It keeps only so far ahead: it shares Python's lock with the training
thread, and a whole dataset at full speed would slow the first minutes down to a third.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

from llamaforge.data.rows import Row
from llamaforge.errors import LlamaForgeError
from llamaforge.train.rows.lead import Lead
from llamaforge.train.rows.recent import Recent
from llamaforge.train.rows.token_cache import TokenCache
from llamaforge.train.rows.tokens import Encoder, Tokens

RECENT_BYTES = 64 * 2**20
"""Bytes of tokens that a feed holds in memory."""

LOOK_AHEAD = 1024
"""Rows that are made before anybody asks for them."""


class Indexed(Protocol):
    """What a feed asks of rows; see `data.store.Rows`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Row: ...


class Feed:
    """Rows as tokens, by row number. May be used from several threads.

    Args:
        rows: canonical rows.
        encoder: makes tokens of them.
        folder: where tokens are kept between jobs; None keeps none.
        key: what decides the tokens, from `tokens.cache_key`; names the folder inside.
    """

    def __init__(
        self, rows: Indexed, encoder: Encoder, *, folder: Path | None, key: str = "tokens"
    ) -> None:
        self._rows = rows
        self.encoder = encoder
        self._recent = Recent(RECENT_BYTES)
        self._cache = (
            TokenCache(folder / key, max_length=encoder.max_length) if folder is not None else None
        )
        self._orders: SimpleQueue[Iterable[int] | None] = SimpleQueue()
        self._lead = Lead(LOOK_AHEAD)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Tokens:
        """The tokens of row `index`, from 0. They are shared: don't write to them.

        Raises:
            DataError: the chat template refuses the row.
            IndexError: there is no such row.
        """
        tokens = self._recent.get(index)
        if tokens is None:
            tokens = self._kept(index) or self._made(index)
            self._recent.put(index, tokens)
            self._lead.asked()
        return tokens

    def line(self, index: int) -> int:
        """Where row `index` came from: line or row number of the file that a person wrote."""
        return self._rows[index].line

    @property
    def problem(self) -> str | None:
        """Why tokens are not kept on disk although they should be; None while all is well."""
        return self._cache.problem if self._cache else None

    def ahead(self, indices: Iterable[int]) -> None:
        """Makes tokens on disk in this order, in the background, after what was asked before.

        At most `LOOK_AHEAD` rows are made beyond those that were asked for.

        Nothing happens without a folder to keep them in. A row that can't be made is skipped: it
        raises its error when it is asked for.

        Args:
            indices: row numbers; read as the work goes on, so it may be a generator.
        """
        if self._cache is None or self._stop.is_set():
            return
        self._orders.put(indices)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="tokens-ahead", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stops the background work within one row, and closes the files. May be called twice."""
        self._stop.set()
        self._lead.end()
        if self._thread is not None:
            self._orders.put(None)
            self._thread.join()
            self._thread = None
        if self._cache is not None:
            self._cache.close()

    def _kept(self, index: int) -> Tokens | None:
        return self._cache.get(index) if self._cache is not None else None

    def _made(self, index: int) -> Tokens:
        tokens = self.encoder.encode(self._rows[index])
        if self._cache is not None:
            self._cache.put(index, tokens)
        return tokens

    def _work(self) -> None:
        while (indices := self._orders.get()) is not None:
            for index in indices:
                if self._stop.is_set() or self.problem:
                    return
                self._prepare(index)

    def _prepare(self, index: int) -> None:
        if self._cache is None or self._cache.holds(index):
            return
        self._lead.wait()
        if self._stop.is_set():
            return
        try:
            self._made(index)
        except LlamaForgeError:
            return  # whoever asks for this row gets the error
