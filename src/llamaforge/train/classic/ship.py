"""Brings a job's files to the nodes that lack them, over Gloo, before training starts.

Each node's first rank says which blobs its store lacks. The first rank of all broadcasts just
those, to just those nodes, in pieces; a model that was fine-tuned yesterday is not sent again.
Received bytes are checked against their digest before they get a name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec
import torch
from torch.distributed import PrefixStore

from llamaforge.bundle.manifest import Entry, Manifest
from llamaforge.bundle.store import BlobStore, Incoming
from llamaforge.errors import IntegrityError, LlamaForgeError
from llamaforge.train.classic.exchange import Exchange
from llamaforge.train.classic.team import Team
from llamaforge.train.group import Group

PIECE = 4 << 20
"""Bytes per broadcast."""
_TOLD_EVERY = 2.0  # seconds between two lines of progress


class Lacks(msgspec.Struct, frozen=True, kw_only=True):
    """The digests that a node's store lacks."""

    digests: list[str]


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent, in this order, and to whom."""

    entries: list[Entry]
    nodes: list[int]
    """The nodes that take part, the sending one first; empty when nobody lacks anything."""


class LaidOut(msgspec.Struct, frozen=True, kw_only=True):
    """Where the bundle stands on a node."""

    bundle: str


def deliver(
    exchange: Exchange,
    team: Team,
    manifest: Manifest,
    store: BlobStore,
    *,
    folder: Path,
    tell: Callable[[str], None],
) -> Path:
    """Makes sure that every node has the bundle's files, and lays them out.

    Called by every process; the first of each node works, the others wait for it.

    Args:
        exchange: the words of this attempt.
        team: the nodes and their addresses.
        manifest: the bundle; the first rank's store has all of it.
        store: this node's blobs.
        folder: where to lay the bundle out, on a node's first rank.
        tell: takes lines of progress.

    Returns:
        The folder of the bundle on this node.

    Raises:
        IntegrityError: bytes that are not what was promised.
        LlamaForgeError: no disk space, or a process was lost.
    """
    launch = exchange.launch
    if launch.leads_node:
        manifest.check()
        lacking = {entry.sha256 for entry in store.missing(manifest)}
        exchange.say(f"lacks/{launch.node}", Lacks(digests=sorted(lacking)))
        if launch.rank == 0:
            lists = [exchange.hear(f"lacks/{node}", Lacks) for node in range(len(team.names))]
            exchange.say("delivery", plan(manifest, [set(each.digests) for each in lists]))
        delivery = exchange.hear("delivery", Delivery)
        if launch.node in delivery.nodes:
            _transfer(exchange, team, delivery, store, lacking, tell)
        store.lay_out(manifest, folder)
        exchange.say(f"bundle/{launch.node}", LaidOut(bundle=str(folder)))
    return Path(exchange.hear(f"bundle/{launch.node}", LaidOut).bundle)


def plan(manifest: Manifest, lacking: Sequence[set[str]]) -> Delivery:
    """What to send.

    Args:
        manifest: all files.
        lacking: the digests that each node lacks; the first node lacks none.

    Raises:
        IntegrityError: the first node lacks something itself.
    """
    if lacking[0]:
        raise IntegrityError(f"{len(lacking[0])} of the job's files vanished from the first node")
    wanted = {entry.sha256: entry for entry in manifest.entries if any(map(_has(entry), lacking))}
    nodes = [node for node, digests in enumerate(lacking) if digests]
    return Delivery(entries=list(wanted.values()), nodes=[0, *nodes] if nodes else [])


def _has(entry: Entry) -> Callable[[set[str]], bool]:
    return lambda digests: entry.sha256 in digests


def _transfer(
    exchange: Exchange,
    team: Team,
    delivery: Delivery,
    store: BlobStore,
    lacking: set[str],
    tell: Callable[[str], None],
) -> None:
    """This node's side of a delivery: the first node sends, the others receive what they lack."""
    launch = exchange.launch
    group = Group.form(
        PrefixStore("ship", exchange.store),
        rank=delivery.nodes.index(launch.node),
        world_size=len(delivery.nodes),
        address=team.addresses[launch.node],
    )
    sends = launch.rank == 0
    others = ", ".join(team.names[node] for node in delivery.nodes[1:])
    what = f"sending to {others}" if sends else f"receiving from {team.names[0]}"
    progress = Progress(what, delivery.entries, tell)
    for entry in delivery.entries:
        if sends:
            _send(group, entry, store, progress)
        else:
            _receive(group, entry, store, progress, keep=entry.sha256 in lacking)
    progress.end()


def _send(group: Group, entry: Entry, store: BlobStore, progress: Progress) -> None:
    with store.path(entry.sha256).open("rb") as file:
        for piece in _pieces(entry):
            if _fill(file, piece) != len(piece):
                raise IntegrityError(f"{entry.path} became shorter while it was sent")
            group.broadcast(piece, root=0)
            progress.add(len(piece))


def _fill(file: BinaryIO, piece: torch.Tensor) -> int:
    """Reads as many bytes as the piece holds; fewer at the end of the file."""
    view, filled = memoryview(piece.numpy()), 0
    while count := file.readinto(view[filled:]):  # type: ignore[attr-defined]
        filled += count
    return filled


def _receive(
    group: Group, entry: Entry, store: BlobStore, progress: Progress, *, keep: bool
) -> None:
    with _incoming(store, entry) if keep else ExitStack() as blob:
        for piece in _pieces(entry):
            group.broadcast(piece, root=0)
            if isinstance(blob, Incoming):
                blob.write(memoryview(piece.numpy()))
            progress.add(len(piece))


@contextmanager
def _incoming(store: BlobStore, entry: Entry) -> Iterator[Incoming]:
    """The store's incoming blob, with a full disk told in words."""
    try:
        with store.incoming(entry.sha256, entry.size) as blob:
            yield blob
    except OSError as error:
        raise LlamaForgeError(
            f"{entry.path} ({entry.size} bytes) can't be kept in {store.root}: {error.strerror}",
            hint=f"make room on that disk: `df -h {store.root}`",
        ) from error


def _pieces(entry: Entry) -> Iterator[torch.Tensor]:
    """Buffers `[bytes]` that together are as long as the entry; one and the same but the last."""
    buffer = torch.empty(min(PIECE, entry.size), dtype=torch.uint8)
    for start in range(0, entry.size, PIECE):
        yield buffer[: min(PIECE, entry.size - start)]


class Progress:
    """Tells how far a transfer is, now and then.

    Args:
        what: the beginning of each line.
        entries: all that is sent.
        tell: takes the lines.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        what: str,
        entries: Sequence[Entry],
        tell: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._files = len(entries)
        self._total = sum(entry.size for entry in entries)
        self._done = 0
        self._tell = tell
        self._clock = clock
        self._began = self._told = clock()

    def add(self, count: int) -> None:
        """Counts bytes that have arrived everywhere."""
        self._done += count
        if self._clock() - self._told >= _TOLD_EVERY:
            self._told = self._clock()
            share = self._done / self._total
            self._tell(f"{self._what}: {share:.0%} of {_megabytes(self._total)}")

    def end(self) -> None:
        """Tells the sum."""
        seconds = self._clock() - self._began
        files = f"{self._files} file{'s' * (self._files != 1)}"
        self._tell(f"{self._what}: {files}, {_megabytes(self._total)} in {seconds:.1f} s")


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
