"""One node as its coordinator sees it: who it is, whether it is there, and what it does."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from llamaforge.coordinator.placement import Candidate
from llamaforge.spec.states import NodeState
from llamaforge.wire.api import NodeStatus
from llamaforge.wire.messages import FromCoordinator, FromWorker, Hello, Inventory
from llamaforge.wire.session import Session


class Node:
    """One worker process, over as many websockets, and coordinators' processes, as it takes.

    Args:
        hello: what it said of itself last.
        received: number of its last frame that arrived.
        barrier: returns when all that the coordinator knows is durable.
    """

    def __init__(
        self,
        hello: Hello,
        *,
        received: int = 0,
        barrier: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.hello = hello
        self.session: Session[FromCoordinator, FromWorker] = Session(
            FromWorker, received=received, barrier=barrier
        )
        self.connection: object | None = None
        """The websocket that carries the session now."""
        self.since = time.time()
        """When it entered its state."""
        self.job = ""
        """The job that it is given to; "" for none."""
        self.ranks = 0
        """Ranks that it was told to run and has not done with."""
        self.otherwise = ""
        """What it is busy with that isn't this coordinator's."""
        self.leaving = ""
        """Why its worker was told to end; "" while it wasn't."""
        self.gone = ""
        """Why it is lost; "" while it isn't."""
        self.kept_off = ""
        """Why somebody wants no (new) job on it; "" where nobody does."""
        self.draining = False
        """Whether it was to finish what it runs when it was kept off."""
        self.canary = ""
        """SHA-256 of its last canary slice."""
        self.inventory = Inventory()
        """What it said of its caches last."""
        self.heard = time.monotonic()
        """When something came from it last."""
        self._shown = (NodeState.DISCONNECTED, "")

    @property
    def name(self) -> str:
        """The node's name."""
        return self.hello.node

    @property
    def state(self) -> NodeState:
        """What it is doing."""
        if self.gone:
            return NodeState.LOST
        if self.connection is None:
            return NodeState.DISCONNECTED
        if self.kept_off:
            return NodeState.DRAINING if self.ranks or self.job else NodeState.CORDONED
        busy = self.job or self.ranks or self.otherwise or self.leaving
        return NodeState.BUSY if busy else NodeState.READY

    @property
    def reason(self) -> str:
        """Why it is in that state, for people."""
        doing = f"job {self.job}" if self.job else self.otherwise
        if self.gone:
            return self.gone
        if self.leaving:
            return f"leaving: {self.leaving}"
        if self.connection is None:
            goes_on = f"{doing} goes on" if doing else ""
            return "; ".join(filter(None, ("its connection is broken", goes_on)))
        return "; ".join(filter(None, (self.kept_off, doing)))

    @property
    def ready(self) -> bool:
        """Whether it can take part in a generation that starts now."""
        return self.state is NodeState.READY

    @property
    def away(self) -> bool:
        """Whether it is gone, or about to be, and may come back."""
        silent = self.connection is None and not self.job
        return bool(self.leaving or silent or self.gone)

    def changed(self) -> bool:
        """Whether state or reason are others than when this was asked last."""
        now = (self.state, self.reason)
        if now == self._shown:
            return False
        self._shown, self.since = now, time.time()
        return True

    def candidate(self) -> Candidate:
        """What placement needs to know."""
        hello = self.hello
        return Candidate(
            name=hello.node,
            cores=hello.cores,
            ranks=hello.ranks,
            address=hello.address,
            memory=hello.memory,
            gpus=hello.gpus,
            labels=hello.labels,
            canary=self.canary,
            state=self.state,
            free=self.ready,
            why_not="" if self.ready else f"{self.state.value}: {self.reason}".rstrip(": "),
        )

    def status(self) -> NodeStatus:
        """What `llamaforge nodes` shows."""
        hello = self.hello
        return NodeStatus(
            name=self.name,
            state=self.state,
            reason=self.reason,
            since=self.since,
            ranks=self.ranks,
            cores=hello.cores,
            memory=hello.memory,
            address=hello.address,
            peer_port=hello.peer_port,
            versions=hello.versions,
            labels=hello.labels,
            gpus=hello.gpus,
            canary=self.canary,
            job=self.job,
            cache_bytes=self.inventory.cache_bytes,
            cache_limit=self.inventory.cache_limit,
            disk_free=self.inventory.disk_free,
        )
