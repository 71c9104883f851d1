"""What the processes of a classic job tell each other through torchrun's store, as JSON.

There is no process group yet when versions are compared and files are shipped, and pickled
objects (`broadcast_object_list`) are out of the question between machines. Each word is one key
that is set once. Whoever waits for a word also hears a refusal: the first process that can't go
on says why, and all the others end with the same message.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TypeVar

import msgspec
from torch.distributed import HashStore, PrefixStore, Store, TCPStore

from llamaforge.errors import (
    FleetError,
    LlamaForgeError,
    UserError,
)
from llamaforge.spec import classic
from llamaforge.spec.ranks import Failed
from llamaforge.train.classic.launch import Launch

T = TypeVar("T")
LONGEST_WORD = 4 << 20
"""Bytes of one word; torch's store refuses values of 8 MiB."""
PARTING = 10.0
"""Seconds for which the first node keeps the store after a refusal, so that others can hear it."""
_CONNECT = timedelta(seconds=60)
_SHORTEST, _LONGEST = 0.01, 0.2  # seconds between two looks for a word


class Refused(LlamaForgeError):
    """Another process of the job can't go on; carries its message.

    Args:
        failed: what it said.
    """

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message, hint=failed.hint)
        self.failed = failed
        self.exit_code = UserError.exit_code if failed.user_error else 1


class Exchange:
    """The words of one attempt.

    Args:
        store: shared by all processes, with a prefix of its own.
        launch: which of them this is.
    """

    def __init__(self, store: Store, launch: Launch) -> None:
        self.store = store
        self.launch = launch

    @classmethod
    def open(cls, launch: Launch) -> Exchange:
        """Connects to torchrun's store; a lone process needs none.

        Raises:
            FleetError: the store is gone.
        """
        if not launch.store_host:
            return cls(HashStore(), launch)
        try:
            server = TCPStore(
                launch.store_host,
                launch.store_port,
                is_master=False,
                timeout=_CONNECT,
                wait_for_workers=False,
            )
        except RuntimeError as error:
            raise _lost(launch, error) from error
        return cls(PrefixStore(classic.room(launch.attempt), server), launch)

    def say(self, key: str, word: object) -> None:
        """Sets a word; a key is said once.

        Raises:
            FleetError: the store is gone.
            ValueError: the word is too long for the store.
        """
        text = msgspec.json.encode(word)
        if len(text) > LONGEST_WORD:
            raise ValueError(f"{key} has {len(text)} bytes, the store takes {LONGEST_WORD}")
        try:
            self.store.set(key, text)
        except RuntimeError as error:
            raise _lost(self.launch, error) from error

    def hear(self, key: str, kind: type[T], *, patience: float | None = None) -> T:
        """Waits for a word.

        Args:
            key: its name.
            kind: its type.
            patience: seconds to wait; None waits as long as the store is there.

        Raises:
            Refused: some process can't go on.
            FleetError: the word did not come in time, or the store is gone.
        """
        deadline = None if patience is None else time.monotonic() + patience
        pause = _SHORTEST
        while (text := self._read(key)) is None:
            if (failed := self.refusal()) is not None:
                raise Refused(failed)
            if deadline is not None and time.monotonic() > deadline:
                raise FleetError(f"no process said {key!r} within {patience:g} seconds")
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST)
        return msgspec.json.decode(text, type=kind)

    def refuse(self, error: BaseException) -> Failed:
        """Says that this process can't go on, unless another one was first.

        Returns:
            The refusal that stands: the first one. Never raises: without a store it stands alone.
        """
        mine = error.failed if isinstance(error, Refused) else as_failed(error)
        try:
            text = self.store.compare_set(classic.REFUSAL, "", msgspec.json.encode(mine).decode())
        except RuntimeError:  # the store is gone, and with it everybody who could listen
            return mine
        return msgspec.json.decode(text, type=Failed)

    def refusal(self) -> Failed | None:
        """Why the attempt can't go on, if somebody said so.

        Raises:
            FleetError: the store is gone.
        """
        text = self._read(classic.REFUSAL)
        return None if text is None else msgspec.json.decode(text, type=Failed)

    def part(self, *, patience: float = PARTING) -> None:
        """Leaves after a refusal; the store's node waits until the others have heard it.

        Args:
            patience: the longest wait in seconds.
        """
        try:
            left = self.store.add("left", 1)
            deadline = time.monotonic() + patience
            while self.launch.node == 0 and left < self.launch.world_size:
                if time.monotonic() > deadline:
                    return
                time.sleep(_LONGEST)
                left = self.store.add("left", 0)
        except RuntimeError:  # the store is gone: nobody is left to wait for
            return

    def _read(self, key: str) -> bytes | None:
        try:
            return self.store.get(key) if self.store.check([key]) else None
        except RuntimeError as error:
            raise _lost(self.launch, error) from error


def call_off(launch: Launch, error: LlamaForgeError) -> None:
    """Ends an attempt that can't even begin: tells the others why, so that they leave too."""
    try:
        exchange = Exchange.open(launch)
    except FleetError:  # nobody is there
        return
    exchange.refuse(error)
    exchange.part()


def as_failed(error: BaseException) -> Failed:
    """An error in the words that travel."""
    if isinstance(error, LlamaForgeError):
        return Failed(
            kind=type(error).__name__,
            message=error.message,
            hint=error.hint,
            user_error=isinstance(error, UserError),
        )
    return Failed(kind=type(error).__name__, message=f"{type(error).__name__}: {error}")


def _lost(launch: Launch, error: Exception) -> FleetError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return FleetError(
        f"torchrun's store on {launch.store_host}:{launch.store_port} is gone: the first node has "
        f"left ({reason})",
        hint="the first node's output says why",
    )
