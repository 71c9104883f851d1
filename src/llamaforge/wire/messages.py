"""What a worker and its coordinator say to each other on their one websocket.

The first frame each way is bare: `Hello`, answered by `Welcome` or `Refusal`. After that every
frame is numbered (`wire.session`), so that a broken connection loses and repeats nothing. JSON;
unknown fields are ignored, so that versions of one protocol number can differ.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from llamaforge.bundle.manifest import Manifest
from llamaforge.spec.job import Job
from llamaforge.spec.ranks import FromRank

PROTOCOL = 1
"""Raised when the two sides can't work together any more; both then say so and name versions."""

FRAME_LIMIT = 16 << 20
"""Bytes in the largest frame; a bundle's manifest is the biggest thing that travels in one."""


# ── greeting ──────────────────────────────────────────────────────────────────────────────────


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """A worker introduces itself."""

    protocol: int = PROTOCOL
    node: str
    """The node's name, unique in the fleet."""
    identity: str
    """Random, made once for each state folder: tells a renamed node from a second one."""
    session: str
    """Random, made once for each worker process."""
    coordinator: str = ""
    """The coordinator that this session belongs to; empty before the first Welcome."""
    received: int = 0
    """Number of the last frame that arrived here in this session."""
    cores: int
    memory: int
    """Bytes."""
    versions: dict[str, str] = {}
    """Of `llamaforge`, `python`, `torch`; torch is "" where it is not installed."""
    capabilities: tuple[str, ...] = ()
    peer_port: int = 0
    """Where the worker serves health and metrics; 0 when it doesn't."""
    address: str = ""
    """IP address at which this node's ranks can be reached by the others'."""
    ranks: int | None = None
    """Ranks that this worker was told to run per job; None: by its cores."""
    busy: str = ""
    """What the worker is busy with now; empty when it waits."""


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag="welcome"):
    """The coordinator takes the worker."""

    coordinator: str
    """Random, made once for each coordinator process."""
    resumed: bool
    """False: the session is new; whatever the worker still runs belongs to nobody."""
    received: int
    """Number of the last frame that arrived at the coordinator in this session."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag="refusal"):
    """The coordinator does not take the worker; it may try again later."""

    reason: str


# ── said by the worker ────────────────────────────────────────────────────────────────────────


class Idle(msgspec.Struct, frozen=True, kw_only=True, tag="idle"):
    """The worker waits for a job; the last one's folder is cleaned up."""


class Busy(msgspec.Struct, frozen=True, kw_only=True, tag="busy"):
    """The worker is busy with something that isn't this coordinator's, such as a classic job."""

    reason: str


class Leaving(msgspec.Struct, frozen=True, kw_only=True, tag="leaving"):
    """The worker was told to end; its ranks save a checkpoint and leave."""

    reason: str


class Left(msgspec.Struct, frozen=True, kw_only=True, tag="left"):
    """Nothing of the worker runs any more; it closes the connection for good."""


class CannotStart(msgspec.Struct, frozen=True, kw_only=True, tag="cannot_start"):
    """The worker can't run its ranks of a generation; none has been started."""

    job_id: str
    generation: int
    kind: str
    """The name of the error's class."""
    message: str
    hint: str = ""
    user_error: bool = False
    busy: bool = False
    """True when it has just become busy otherwise: the job can go on without this node."""


class RankSaid(msgspec.Struct, frozen=True, kw_only=True, tag="rank_said"):
    """One report of a rank, unchanged."""

    job_id: str
    generation: int
    rank: int
    report: FromRank


class RankLog(msgspec.Struct, frozen=True, kw_only=True, tag="rank_log"):
    """One line that a rank wrote to its standard output or error."""

    job_id: str
    rank: int
    line: str


class RankExited(msgspec.Struct, frozen=True, kw_only=True, tag="rank_exited"):
    """A rank's process is gone. Exactly one of `code` and `signal` is set."""

    job_id: str
    generation: int
    rank: int
    code: int | None = None
    signal: int | None = None
    ordered: bool = False
    """True when it died of a signal that the worker had sent, or failed after one."""
    last_lines: tuple[str, ...] = ()
    """The end of its output, at most 20 lines."""
    memory: str = ""
    """Whose memory was at its end when the kernel killed the rank for want of it; else empty."""


class Uploaded(msgspec.Struct, frozen=True, kw_only=True, tag="uploaded"):
    """A checkpoint, or all artifacts, of a job have arrived at the coordinator, or never will."""

    job_id: str
    generation: int | None = None
    """Whose they are; None from a worker that doesn't tell."""
    what: Literal["checkpoint", "artifacts"]
    name: str = ""
    """The checkpoint's folder name."""
    error: str = ""
    """Why it did not arrive; empty when it did."""


FromWorker = Idle | Busy | Leaving | Left | CannotStart | RankSaid | RankLog | RankExited | Uploaded


# ── said by the coordinator ───────────────────────────────────────────────────────────────────


class StartRanks(msgspec.Struct, frozen=True, kw_only=True, tag="start_ranks"):
    """Run these ranks of a generation: fetch missing blobs, lay out the bundle, start."""

    job: Job
    generation: int
    manifest: Manifest
    first_rank: int
    count: int
    """Ranks on this node; they are numbered from `first_rank`."""
    world_size: int


class Rendezvous(msgspec.Struct, frozen=True, kw_only=True, tag="rendezvous"):
    """The generation's store listens there; for every rank but rank 0."""

    job_id: str
    generation: int
    host: str
    port: int


class StopRanks(msgspec.Struct, frozen=True, kw_only=True, tag="stop_ranks"):
    """End a job's ranks here: after a checkpoint, or at once (SIGTERM, then SIGKILL)."""

    job_id: str
    how: Literal["checkpoint", "end"]
    reason: str


FromCoordinator = StartRanks | Rendezvous | StopRanks
