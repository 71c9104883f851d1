"""The bodies of the coordinator's HTTP requests and answers (JSON), and where each is asked."""

from __future__ import annotations

import msgspec

from llamaforge.bundle.manifest import Entry, Manifest
from llamaforge.spec.job import Job
from llamaforge.spec.states import JobState, NodeState

HEALTH = "/health"
STATUS = "/v1/status"
MISSING = "/v1/missing"
BLOBS = "/v1/blobs"
JOBS = "/v1/jobs"
WORKERS = "/v1/workers"

GENERATION = "LlamaForge-Generation"
"""Header of what a rank 0's worker sends: the generation whose files they are."""
STREAM_BEAT = 5.0
"""Seconds after which a silent job stream sends an empty line."""
STREAM_SILENCE = 20.0
"""Seconds without anything after which a client gives up a job stream and dials again."""
BODY_LIMIT = 64 << 20
"""Bytes in the largest JSON body; files are streamed and have limits of their own."""


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One node of the fleet."""

    name: str
    state: NodeState
    reason: str = ""
    """Why it is in that state, such as the job it runs; may be empty."""
    since: float
    """Unix time in seconds at which it entered the state."""
    ranks: int = 0
    """Ranks it runs now."""
    cores: int
    memory: int
    """Bytes."""
    address: str = ""
    peer_port: int = 0
    versions: dict[str, str] = {}


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One job of the coordinator, queued, running or ended."""

    id: str
    state: JobState
    reason: str = ""
    since: float
    """Unix time in seconds at which it entered the state."""
    submitted: float
    """Unix time in seconds."""
    output_dir: str
    total_steps: int
    step: int = 0
    """Last step that a metric line told of."""
    updates: int = 0
    """Updates in its stream so far."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet as its coordinator sees it."""

    coordinator: str
    version: str
    pid: int
    started: float
    """Unix time in seconds."""
    nodes: tuple[NodeStatus, ...] = ()
    jobs: tuple[JobStatus, ...] = ()
    """Oldest first."""


class MissingBlobs(msgspec.Struct, frozen=True, kw_only=True):
    """The entries of an asked manifest whose blobs the coordinator lacks."""

    entries: tuple[Entry, ...]


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A job to run. All blobs of the manifest are at the coordinator."""

    job: Job
    manifest: Manifest
    output_dir: str
    """The job's folder on the coordinator's host; absolute."""
    checkpoint_dir: str
    """Where checkpoints go on the coordinator's host; absolute."""
    resume_step: int | None = None
    """Committed step of the checkpoint in the bundle's `resume/`; None: from the start."""


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """The job is queued."""

    job_id: str


class StopRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Stop a job: first with a checkpoint; asked again, or with `now`, at once."""

    reason: str
    now: bool = False


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was refused, for a person."""

    message: str
    hint: str = ""
    user_error: bool = False
