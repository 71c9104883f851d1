"""What a worker and its coordinator say to each other on their one websocket.

The first frame each way is bare: `Hello`, answered by `Welcome` or `Refusal`. After that every
frame is numbered (`wire.session`), so that a broken connection loses and repeats nothing. JSON;
unknown fields are ignored, so that versions of one protocol number can differ.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from llamaforge.bundle.manifest import Manifest
from llamaforge.spec.job import Job
from llamaforge.spec.ranks import FromRank
from llamaforge.spec.script import ScriptJob

PROTOCOL = 3
"""Raised when what is said changes; each side works with those from the other's OLDEST on."""
OLDEST = 2
"""The oldest protocol that this side still speaks; 1 had no certificates."""

MOST_RANKS = 4096
"""Ranks of one node that are believed."""
Count = Annotated[int, Meta(ge=0, le=2**53)]
"""A number from a peer: JSON knows larger ones, but neither the ledger nor other peers do."""
Code = Annotated[int, Meta(ge=-(2**31), lt=2**31)]
"""A process's exit code or signal."""
Port = Annotated[int, Meta(ge=0, le=65535)]

FRAME_LIMIT = 16 << 20
"""Bytes in the largest frame; a bundle's manifest is the biggest thing that travels in one."""


# ── greeting ──────────────────────────────────────────────────────────────────────────────────


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """A worker introduces itself."""

    protocol: Count = PROTOCOL
    oldest: Count = OLDEST
    node: str
    """The node's name, unique in the fleet."""
    identity: str
    """Random, made once for each state folder: tells a renamed node from a second one."""
    session: str
    """Random, made once for each worker process."""
    coordinator: str = ""
    """The fleet that this session belongs to; empty before the first Welcome."""
    process: str = ""
    """The coordinator's process whose frames `received` counts; another one counts from 1 again."""
    received: Count = 0
    """Number of the last frame that arrived here in this session."""
    cores: Count
    memory: Count
    """Bytes."""
    versions: dict[str, str] = {}
    """Of `llamaforge`, `python`, `torch`; torch is "" where it is not installed."""
    capabilities: tuple[str, ...] = ()
    peer_port: Port = 0
    """Where the worker serves health and metrics; 0 when it doesn't."""
    address: str = ""
    """IP address at which this node's ranks can be reached by the others'."""
    ranks: Annotated[int, Meta(ge=0, le=MOST_RANKS)] | None = None
    """Ranks that this worker was told to run per job; None: by its cores."""
    busy: str = ""
    """What the worker is busy with now; empty when it waits."""
    labels: tuple[str, ...] = ()
    """What its administrator says about the node, such as `fast-disk`."""
    gpus: Count = 0


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag="welcome"):
    """The coordinator takes the worker."""

    coordinator: str
    """Random, made once for each fleet; the same after the coordinator was started again."""
    process: str = ""
    """Random, made once for each coordinator process."""
    resumed: bool
    """False: the session is new; whatever the worker still runs belongs to nobody."""
    received: Count
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
    generation: Count
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
    generation: Count
    rank: Count
    report: FromRank


class RankLog(msgspec.Struct, frozen=True, kw_only=True, tag="rank_log"):
    """One line that a rank wrote to its standard output or error."""

    job_id: str
    rank: Count
    line: str


class RankExited(msgspec.Struct, frozen=True, kw_only=True, tag="rank_exited"):
    """A rank's process is gone. Exactly one of `code` and `signal` is set."""

    job_id: str
    generation: Count
    rank: Count
    code: Code | None = None
    signal: Code | None = None
    ordered: bool = False
    """True when it died of a signal that the worker had sent, or failed after one."""
    last_lines: tuple[str, ...] = ()
    """The end of its output, at most 20 lines."""
    memory: str = ""
    """Whose memory was at its end when the kernel killed the rank for want of it; else empty."""


class Uploaded(msgspec.Struct, frozen=True, kw_only=True, tag="uploaded"):
    """A checkpoint, or all artifacts, of a job have arrived at the coordinator, or never will."""

    job_id: str
    generation: Count | None = None
    """Whose they are; None from a worker that doesn't tell."""
    what: Literal["checkpoint", "artifacts"]
    name: str = ""
    """The checkpoint's folder name."""
    error: str = ""
    """Why it did not arrive; empty when it did."""


class Beat(msgspec.Struct, frozen=True, kw_only=True, tag="beat"):
    """A node's ranks go on: told by every node of a job, at most once a second."""

    job_id: str
    generation: Count
    step: Count
    """Steps that are committed, as a rank of this node knows."""


class LinkSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """What one node saw of another one's peer port."""

    node: str
    ok: bool
    error: str = ""
    """Why it can't be reached, for people."""
    address: str = ""
    """Where it was tried."""
    round_trip: float = 0.0
    """Seconds."""
    bytes_per_second: float = 0.0
    age: float = 0.0
    """Seconds since it was measured; it is not measured again at every start."""


class PreflightReport(msgspec.Struct, frozen=True, kw_only=True, tag="preflight_report"):
    """What a node found out about itself and its links before a generation."""

    job_id: str
    generation: Count
    refusal: str = ""
    """Why this node can't take part; empty when it can."""
    hint: str = ""
    """What to do about it."""
    passing: bool = False
    """Whether the refusal may end without anybody's help, such as a want of room."""
    warnings: tuple[str, ...] = ()
    canary: str = ""
    """SHA-256 of the canary slice's gradient; empty where none was asked for."""
    links: tuple[LinkSpeed, ...] = ()
    disk_free: Count = 0
    """Bytes, where the bundle goes."""
    time: float = 0.0
    """Its clock: Unix time in seconds."""
    fingerprint: dict[str, str] = {}
    """Python, torch, instruction set, driver, library versions."""


class RankStack(msgspec.Struct, frozen=True, kw_only=True):
    """Where one rank stands."""

    rank: Count
    state: str
    """The kernel's letter for its process: R, S, D, T, Z."""
    phase: str = ""
    """What it was doing, in its own words; empty when it doesn't tell."""
    step: Count = 0
    idle: float = 0.0
    """Seconds since it last did something."""
    waits: bool = False
    """Whether it waits for other ranks."""
    text: str = ""
    """Its threads' stacks."""


class Stacks(msgspec.Struct, frozen=True, kw_only=True, tag="stacks"):
    """The stack dumps that were asked for."""

    job_id: str
    generation: Count
    ranks: tuple[RankStack, ...]


class Inventory(msgspec.Struct, frozen=True, kw_only=True, tag="inventory"):
    """What a node has to share with the others, told when it changes."""

    cache_bytes: Count = 0
    """Bytes in its caches."""
    cache_limit: Count = 0
    disk_free: Count = 0


FromWorker = (
    Idle
    | Busy
    | Leaving
    | Left
    | CannotStart
    | RankSaid
    | RankLog
    | RankExited
    | Uploaded
    | Beat
    | PreflightReport
    | Stacks
    | Inventory
)


# ── said by the coordinator ───────────────────────────────────────────────────────────────────


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Another node of the same generation, which has or fetches the same blobs."""

    node: str
    address: str
    port: Port
    """Its peer port."""


class Roster(msgspec.Struct, frozen=True, kw_only=True, tag="roster"):
    """The nodes of the fleet: peers whose certificates name another one are refused."""

    nodes: tuple[str, ...]


class Preflight(msgspec.Struct, frozen=True, kw_only=True, tag="preflight"):
    """Look at yourself and at your links before a generation; answered by `PreflightReport`."""

    job_id: str
    generation: Count
    manifest: Manifest = Manifest()
    """The bundle; what is here already needs no room. May be empty."""
    peers: tuple[Peer, ...] = ()
    """All nodes of the generation, this one too."""
    canary: str = ""
    """The precision (`bf16`, `fp32`) of the canary slice; empty: none is wanted."""
    threads: Count = 1


class DumpStacks(msgspec.Struct, frozen=True, kw_only=True, tag="dump_stacks"):
    """Say where each rank of this job stands; answered by `Stacks`."""

    job_id: str
    generation: Count


class StartRanks(msgspec.Struct, frozen=True, kw_only=True, tag="start_ranks"):
    """Run these ranks of a generation: fetch missing blobs, lay out the bundle, start.

    Said again after the coordinator was started again: a worker that has this generation, or had
    it, does nothing. Exactly one of `job` and `script` is set.
    """

    job: Job | None = None
    script: ScriptJob | None = None
    peers: tuple[Peer, ...] = ()
    """All nodes of the generation in the order of their ranks, this one too."""
    restarts: Count = 0
    """How often the ranks of a script have been started again."""
    generation: Count
    manifest: Manifest
    first_rank: Count
    count: Count
    """Ranks on this node; they are numbered from `first_rank`."""
    world_size: Count

    @property
    def job_id(self) -> str:
        """The job's id."""
        work = self.job or self.script
        assert work is not None
        return work.id


class Rendezvous(msgspec.Struct, frozen=True, kw_only=True, tag="rendezvous"):
    """The generation's store listens there; for every rank but rank 0."""

    job_id: str
    generation: Count
    host: str
    port: Port


class StopRanks(msgspec.Struct, frozen=True, kw_only=True, tag="stop_ranks"):
    """End a job's ranks here: after a checkpoint, or at once (SIGTERM, then SIGKILL)."""

    job_id: str
    generation: Count | None = None
    """Whose ranks; None: those of any."""
    how: Literal["checkpoint", "end"]
    reason: str


FromCoordinator = StartRanks | Rendezvous | StopRanks | Roster | Preflight | DumpStacks
