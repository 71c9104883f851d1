"""What the coordinator must remember of a job between two of its own lives."""

from __future__ import annotations

from typing import Any

import msgspec

from llamaforge.coordinator.leading.continuing import Failures
from llamaforge.coordinator.leading.resumption import Start
from llamaforge.wire.messages import Peer
from llamaforge.wire.updates import NodeRanks


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """The generation that has been ordered and has not been judged yet."""

    number: int
    members: tuple[NodeRanks, ...]
    peers: tuple[Peer, ...]
    restarts: int = 0


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """A job's way so far, as the ledger keeps it."""

    start: Start
    """Where the next generation goes on, or where the running one did."""
    failures: Failures = Failures()
    history: tuple[dict[str, Any], ...] = ()
    """The generations' entries; see `coordinator.leading.history`."""
    versions: dict[str, dict[str, str]] = {}
    """What each node that has taken part ran when it last did."""
    number: int = 0
    """The last generation's number."""
    restarts: int = 0
    """How often the ranks of a script have been started again."""
    running: Running | None = None
