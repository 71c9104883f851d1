"""The fleet's nodes: who is connected, what each does, and when one counts as lost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from llamaforge import __version__
from llamaforge.coordinator.placement import Candidate, natural
from llamaforge.spec.states import NodeState
from llamaforge.wire.api import NodeStatus
from llamaforge.wire.messages import (
    PROTOCOL,
    Busy,
    FromCoordinator,
    FromWorker,
    Hello,
    Idle,
    Leaving,
    Left,
    Refusal,
    Welcome,
)
from llamaforge.wire.session import Session

LONGEST_NAME = 255
"""Characters in a node's name; host names are no longer."""

log = logging.getLogger("llamaforge.coordinator")


class Node:
    """One worker process as the coordinator sees it, over as many websockets as it takes."""

    def __init__(self, hello: Hello) -> None:
        self.hello = hello
        self.session: Session[FromCoordinator, FromWorker] = Session(FromWorker)
        self.connection: object | None = None
        """The websocket that carries the session now."""
        self.state, self.reason, self.since = NodeState.READY, "", time.time()
        self.ranks = 0
        """Ranks that it was told to run."""
        self.leaving = False
        """Whether its worker was told to end."""

    @property
    def name(self) -> str:
        """The node's name."""
        return self.hello.node

    @property
    def ready(self) -> bool:
        """Whether it can take part in a generation that starts now."""
        return self.state is NodeState.READY and self.connection is not None

    @property
    def away(self) -> bool:
        """Whether it is gone, or about to be, and may come back."""
        silent = self.state is NodeState.READY and self.connection is None
        return self.leaving or silent or self.state is NodeState.LOST

    def enter(self, state: NodeState, reason: str = "", ranks: int = 0) -> None:
        """Puts the node into a state."""
        if (state, reason) != (self.state, self.reason):
            self.since = time.time()
        self.state, self.reason, self.ranks = state, reason, ranks

    def candidate(self) -> Candidate:
        """What placement needs to know."""
        hello = self.hello
        return Candidate(
            name=hello.node, cores=hello.cores, ranks=hello.ranks, address=hello.address
        )

    def status(self) -> NodeStatus:
        """What `llamaforge status` shows."""
        away = self.connection is None and self.state is not NodeState.LOST
        return NodeStatus(
            name=self.name,
            state=self.state,
            reason=f"{self.reason} (connection broken)".strip() if away else self.reason,
            since=self.since,
            ranks=self.ranks,
            cores=self.hello.cores,
            memory=self.hello.memory,
            address=self.hello.address,
            peer_port=self.hello.peer_port,
            versions=self.hello.versions,
        )


class Nodes:
    """The registry.

    Args:
        coordinator: this coordinator's id, random per process.
        grace: seconds for which a node may be without a connection.
        heard: told every message of a worker.
        lost: told when a node with or without ranks is gone for good.
        changed: told when a node may have become ready.
    """

    def __init__(
        self,
        coordinator: str,
        grace: float,
        *,
        heard: Callable[[Node, FromWorker], None],
        lost: Callable[[Node], None],
        changed: Callable[[], None],
    ) -> None:
        self._coordinator, self._grace = coordinator, grace
        self._heard, self._lost, self._changed = heard, lost, changed
        self._nodes: dict[str, Node] = {}
        self._clocks: dict[str, asyncio.TimerHandle] = {}

    def all(self) -> list[Node]:
        """All nodes, lost ones too, ordered by name."""
        return sorted(self._nodes.values(), key=lambda node: natural(node.name))

    def ready(self) -> list[Node]:
        """The nodes that wait for a job, ordered by name."""
        return [node for node in self.all() if node.ready]

    def send(self, name: str, message: FromCoordinator) -> None:
        """Gives a node's worker a message; it arrives once the worker is connected."""
        self._nodes[name].session.send(message)

    def greet(self, hello: Hello) -> tuple[Node | None, Welcome | Refusal]:
        """Answers a worker's greeting.

        Returns:
            The node, whose session goes on or begins, and what to say; no node with a Refusal.
        """
        old = self._nodes.get(hello.node)
        if refusal := self._refuse(hello, old):
            return None, refusal
        resumed = (
            old is not None
            and old.state is not NodeState.LOST
            and old.hello.session == hello.session
            and hello.coordinator == self._coordinator
        )
        node = old if resumed and old is not None else self._begin(hello, old)
        node.hello = hello
        welcome = Welcome(
            coordinator=self._coordinator, resumed=resumed, received=node.session.received
        )
        return node, welcome

    def connect(self, node: Node, connection: object) -> None:
        """A websocket carries the node's session from now on."""
        node.connection = connection
        if clock := self._clocks.pop(node.name, None):
            clock.cancel()
        self._changed()

    def disconnect(self, node: Node, connection: object) -> None:
        """The websocket is gone; unless another one comes soon, the node is lost."""
        if node.connection is not connection:
            return
        node.connection = None
        loop = asyncio.get_running_loop()
        silent = f"its worker has not been heard of for {self._grace:g} s"
        self._clocks[node.name] = loop.call_later(self._grace, self._give_up, node, silent)

    def take(self, node: Node, message: FromWorker) -> None:
        """A worker said something."""
        if isinstance(message, Idle):
            node.enter(NodeState.READY)
        elif isinstance(message, Busy):
            node.enter(NodeState.BUSY, message.reason)
        elif isinstance(message, Leaving):
            node.leaving = True
            node.enter(NodeState.BUSY, f"leaving: {message.reason}", node.ranks)
        elif isinstance(message, Left):
            self._give_up(node, "its worker was ended")
        self._heard(node, message)
        self._changed()

    def _refuse(self, hello: Hello, old: Node | None) -> Refusal | None:
        if hello.protocol != PROTOCOL:
            theirs = hello.versions.get("llamaforge", "?")
            return Refusal(
                reason=f"worker speaks protocol {hello.protocol} (LlamaForge {theirs}), "
                f"coordinator {PROTOCOL} (LlamaForge {__version__}): install the same on both"
            )
        if not hello.node.strip() or not hello.node.isprintable() or len(hello.node) > LONGEST_NAME:
            return Refusal(
                reason=f"{hello.node[:80]!r} can't be a node's name: choose another one with --name"
            )
        if old and old.connection is not None and old.hello.identity != hello.identity:
            return Refusal(
                reason=f"another worker is called {hello.node!r}: choose a name with --name"
            )
        return None

    def _begin(self, hello: Hello, old: Node | None) -> Node:
        """A new session; whatever the node's last one ran is lost."""
        if old is not None and old.state is not NodeState.LOST:
            self._give_up(old, "its worker was started anew")
        node = self._nodes[hello.node] = Node(hello)
        if hello.busy:
            node.enter(NodeState.BUSY, hello.busy)
        log.info("node %s joined (%d cores, %s)", node.name, hello.cores, hello.address or "?")
        return node

    def _give_up(self, node: Node, reason: str) -> None:
        if clock := self._clocks.pop(node.name, None):
            clock.cancel()
        if node.state is NodeState.LOST:
            return
        log.info("node %s is lost: %s", node.name, reason)
        node.enter(NodeState.LOST, reason)
        self._lost(node)
        self._changed()
