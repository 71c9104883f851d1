"""The fleet's nodes: who is connected, what each does, and when one counts as lost.

What is said here of a worker's session stands in the ledger with everything that follows from it,
so a coordinator that was started again knows which frames of which worker it has had.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import msgspec

from llamaforge import __version__
from llamaforge.coordinator.ledger.ledger import Ledger
from llamaforge.coordinator.node import Node
from llamaforge.coordinator.placement import natural
from llamaforge.wire.messages import (
    OLDEST,
    PROTOCOL,
    Busy,
    FromCoordinator,
    FromWorker,
    Hello,
    Idle,
    Inventory,
    Leaving,
    Left,
    Refusal,
    Welcome,
)

LONGEST_NAME = 255
"""Characters in a node's name; host names are no longer."""
RECOVERY_GRACE = 60.0
"""Seconds that workers have to come back to a coordinator that was started again: they dial with
pauses of up to ten seconds, and a whole room may be booting."""

log = logging.getLogger("llamaforge.coordinator")


class Nodes:
    """The registry.

    Args:
        fleet: this fleet's id.
        process: this coordinator process's id.
        grace: seconds for which a node may be without a connection.
        ledger: where it stands.
        barrier: returns when all that the coordinator knows is durable.
        heard: told every message of a worker.
        lost: told when a node with or without ranks is gone for good.
        changed: told when a node may have become ready.
        spared: whether a silent node's job goes on, as others can tell.
    """

    def __init__(
        self,
        fleet: str,
        process: str,
        grace: float,
        ledger: Ledger,
        *,
        barrier: Callable[[], Awaitable[None]],
        heard: Callable[[Node, FromWorker], None],
        lost: Callable[[Node], None],
        changed: Callable[[], None],
        spared: Callable[[Node], bool] = lambda _: False,
    ) -> None:
        self._fleet, self._process, self.grace = fleet, process, grace
        self._ledger, self.durable = ledger, barrier
        self._heard, self._lost, self._changed = heard, lost, changed
        self._spared = spared
        self._nodes: dict[str, Node] = {}
        self._ordered: list[str] = []
        self._clocks: dict[str, asyncio.TimerHandle] = {}

    def all(self) -> list[Node]:
        """All nodes, lost ones too, ordered by name."""
        if len(self._ordered) != len(self._nodes):
            self._ordered = sorted(self._nodes, key=natural)
        return [self._nodes[name] for name in self._ordered]

    def get(self, name: str) -> Node | None:
        """A node by its name."""
        return self._nodes.get(name)

    def send(self, name: str, message: FromCoordinator) -> None:
        """Gives a node's worker a message; it arrives once the worker is connected."""
        node = self._nodes.get(name)
        if node is not None:
            node.session.send(message)

    # ── coming and going ──────────────────────────────────────────────────────────────────────

    def recover(self) -> None:
        """Takes up the sessions that an earlier process had."""
        rows = self._ledger.read("SELECT hello, received, ranks, job, reason FROM sessions")
        for hello, received, ranks, job, gone in rows:
            node = Node(
                msgspec.json.decode(hello, type=Hello), received=received, barrier=self.durable
            )
            node.ranks, node.job, node.gone = ranks, job or "", gone or ""
            self._nodes[node.name] = node
            self._read_wishes(node)
            node.changed()
            if not node.gone:
                self._wind(node, max(self.grace, RECOVERY_GRACE))

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
            and not old.gone
            and old.hello.session == hello.session
            and hello.coordinator == self._fleet
        )
        node = old if resumed and old is not None else self._begin(hello, old)
        node.hello = hello
        self._keep(node)
        welcome = Welcome(
            coordinator=self._fleet,
            process=self._process,
            resumed=resumed,
            received=node.session.received,
        )
        return node, welcome

    def connect(self, node: Node, connection: object) -> None:
        """A websocket carries the node's session from now on."""
        node.connection = connection
        node.heard = time.monotonic()
        if clock := self._clocks.pop(node.name, None):
            clock.cancel()
        self._note(node)
        self._changed()

    def disconnect(self, node: Node, connection: object) -> None:
        """The websocket is gone; unless another one comes soon, the node is lost."""
        if node.connection is not connection:
            return
        node.connection = None
        if not node.gone:
            self._wind(node, self.grace)
        self._note(node)
        self._changed()

    def take(self, node: Node, message: FromWorker) -> None:
        """A worker said something."""
        node.heard = time.monotonic()
        told = isinstance(message, Idle | Busy | Leaving | Left)
        if isinstance(message, Idle):
            node.ranks, node.job, node.otherwise = 0, "", ""
        elif isinstance(message, Busy):
            node.otherwise = message.reason
        elif isinstance(message, Inventory):
            node.inventory = message
        elif isinstance(message, Leaving):
            node.leaving = message.reason
        self._heard(node, message)
        if isinstance(message, Left):
            self.give_up(node, "its worker was ended")
        self._keep(node) if told else self._count(node)
        self._note(node)
        self._changed()

    def give(self, node: Node, job: str, ranks: int = 0) -> None:
        """Gives a node to a job, or with "" to nobody."""
        node.job, node.ranks = job, ranks
        self._keep(node)
        self._note(node)

    def give_up(self, node: Node, reason: str) -> None:
        """A node is gone for good, with whatever ran there."""
        if clock := self._clocks.pop(node.name, None):
            clock.cancel()
        if node.gone:
            return
        log.info("node %s is lost: %s", node.name, reason)
        node.gone = reason
        self._lost(node)
        node.job, node.ranks, node.otherwise = "", 0, ""
        self._keep(node)
        self._note(node)
        self._changed()

    # ── what people wish ──────────────────────────────────────────────────────────────────────

    def keep_off(self, node: Node, reason: str, *, by: str, draining: bool) -> None:
        """No new job for this node from now on."""
        node.kept_off, node.draining = reason, draining
        self._write_wishes(node, by)

    def allow(self, node: Node, *, by: str) -> None:
        """Jobs for this node again."""
        node.kept_off, node.draining = "", False
        self._write_wishes(node, by)

    def forget(self, node: Node, reason: str) -> None:
        """A node that was removed from the fleet."""
        self.give_up(node, reason)
        self._nodes.pop(node.name, None)
        self._ordered = []
        self._ledger.write("DELETE FROM sessions WHERE node = ?", node.name)
        self._changed()

    def measured(self, node: Node, canary: str) -> None:
        """A canary slice was computed on a node."""
        if canary and canary != node.canary:
            node.canary = canary
            self._ledger.write("UPDATE nodes SET canary = ? WHERE name = ?", canary, node.name)

    def _write_wishes(self, node: Node, by: str) -> None:
        self._ledger.write(
            "INSERT INTO nodes (name, since, removed, cordoned, draining, reason) "
            "VALUES (?, ?, 0, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
            "cordoned = excluded.cordoned, draining = excluded.draining, reason = excluded.reason",
            node.name,
            time.time(),
            int(bool(node.kept_off)),
            int(node.draining),
            node.kept_off,
        )
        self._note(node, by)
        self._changed()

    def _read_wishes(self, node: Node) -> None:
        rows = self._ledger.look(
            "SELECT cordoned, draining, reason, canary FROM nodes WHERE name = ?", node.name
        )
        for cordoned, draining, reason, canary in rows:
            node.kept_off = (reason or "kept off") if cordoned else ""
            node.draining, node.canary = bool(draining), canary or ""

    # ── inside ────────────────────────────────────────────────────────────────────────────────

    def _refuse(self, hello: Hello, old: Node | None) -> Refusal | None:
        if hello.protocol < OLDEST or hello.oldest > PROTOCOL:
            theirs = hello.versions.get("llamaforge", "?")
            older = "the worker" if hello.protocol < OLDEST else "the coordinator"
            return Refusal(
                reason=f"worker speaks protocol {hello.protocol} (LlamaForge {theirs}), "
                f"coordinator {PROTOCOL} (LlamaForge {__version__}): update {older}"
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
        if old is not None:
            self.give_up(old, "its worker was started anew")
        node = self._nodes[hello.node] = Node(hello, barrier=self.durable)
        node.otherwise = hello.busy
        self._ledger.write(
            "INSERT INTO nodes (name, since, removed, cordoned, draining, reason) "
            "VALUES (?, ?, 0, 0, 0, '') ON CONFLICT (name) DO NOTHING",
            node.name,
            time.time(),
        )
        if old is not None:
            node.kept_off, node.draining, node.canary = old.kept_off, old.draining, old.canary
        else:
            self._read_wishes(node)
        log.info("node %s joined (%d cores, %s)", node.name, hello.cores, hello.address or "?")
        return node

    def _wind(self, node: Node, seconds: float) -> None:
        """Gives a node this long to come back."""
        loop = asyncio.get_running_loop()
        if clock := self._clocks.pop(node.name, None):
            clock.cancel()
        self._clocks[node.name] = loop.call_later(seconds, self._silent, node, seconds)

    def _silent(self, node: Node, seconds: float) -> None:
        """Its time is up, unless its job's ranks show that they go on."""
        if self._spared(node):
            self._wind(node, self.grace)
            return
        self.give_up(node, f"its worker has not been heard of for {seconds:g} s")

    def _keep(self, node: Node) -> None:
        """Writes a node's session down, with whatever its last message has brought about."""
        self._ledger.write(
            "INSERT OR REPLACE INTO sessions "
            "(node, session, received, hello, state, reason, since, ranks, job) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            node.name,
            node.hello.session,
            node.session.received,
            msgspec.json.encode(node.hello),
            node.state.value,
            node.gone,
            node.since,
            node.ranks,
            node.job,
        )

    def _count(self, node: Node) -> None:
        """Writes down how much of a node's session has arrived."""
        self._ledger.write(
            "UPDATE sessions SET received = ? WHERE node = ?", node.session.received, node.name
        )

    def _note(self, node: Node, by: str = "") -> None:
        """An event, where the node's state or its reason has changed."""
        if node.changed():
            self._ledger.event("node", node.name, node.state.value, node.reason, by)
