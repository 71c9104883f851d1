"""The bodies of the coordinator's HTTP requests and answers (JSON), and where each is asked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llamaforge.bundle.manifest import Entry, Manifest
from llamaforge.spec.job import Job
from llamaforge.spec.script import ScriptJob
from llamaforge.spec.states import JobState, NodeState
from llamaforge.spec.wishes import Wishes

HEALTH = "/health"
STATUS = "/v1/status"
MISSING = "/v1/missing"
BLOBS = "/v1/blobs"
JOBS = "/v1/jobs"
WORKERS = "/v1/workers"
NODES = "/v1/nodes"
EVENTS = "/v1/events"
TOKENS = "/v1/tokens"
PEOPLE = "/v1/people"
JOIN = "/v1/join"
"""The one path besides /health that needs no certificate: it gives one, for a token."""
RENEW = "/v1/renew"

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
    labels: tuple[str, ...] = ()
    gpus: int = 0
    canary: str = ""
    """SHA-256 of its last canary slice; nodes with equal ones compute the same bits."""
    job: str = ""
    """The job that it runs; "" for none."""
    cache_bytes: int = 0
    """Bytes in its caches."""
    cache_limit: int = 0
    disk_free: int = 0
    """Bytes that are free where its caches are."""


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
    submitter: str = ""
    """Who submitted it, such as `local:anna` or `person:bob`."""
    priority: int = 0
    kind: str = "train"
    """`train`, or `run` for somebody's own script."""
    nodes: tuple[str, ...] = ()
    """Nodes of the running generation."""
    generation: int = 0
    own_folder: bool = False
    """Whether its folder is the coordinator's own: its files are fetched from there."""
    failure: str = ""
    """Class of the failure (`spec.states.FailureClass`) of a job that failed; else empty."""


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


class Jobs(msgspec.Struct, frozen=True, kw_only=True):
    """What `GET /v1/jobs` answers: the jobs that have not ended, with `?all=1` all of them."""

    jobs: tuple[JobStatus, ...]
    """Oldest first."""


class MissingBlobs(msgspec.Struct, frozen=True, kw_only=True):
    """The entries of an asked manifest whose blobs the coordinator lacks."""

    entries: tuple[Entry, ...]


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A job to run. All blobs of the manifest are at the coordinator.

    Exactly one of `job` and `script` is set. Sent again with the same `key` it changes nothing.
    """

    job: Job | None = None
    script: ScriptJob | None = None
    manifest: Manifest
    wishes: Wishes = Wishes()
    key: str = ""
    """Random, made once for each submission, so that a repeated request is no second job."""
    output_dir: str = ""
    """The job's folder on the coordinator's host, absolute; empty: one of the coordinator's own.
    Only the coordinator's own user and root may name one."""
    checkpoint_dir: str = ""
    """Where checkpoints go on the coordinator's host; absolute, or empty as above."""
    resume_step: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    """Committed step of the checkpoint in the bundle's `resume/`; None: from the start."""

    @property
    def job_id(self) -> str:
        """The job's id."""
        work = self.job or self.script
        assert work is not None
        return work.id


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """The job is queued."""

    job_id: str


class JobFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a job's folder on the coordinator."""

    path: str
    """Relative to the job's folder."""
    size: int
    """Bytes."""


class JobFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What `GET /v1/jobs/ID/files` answers; `GET /v1/jobs/ID/files/PATH` gives one."""

    files: tuple[JobFile, ...]


class NodeWish(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /v1/nodes/NAME`: what a node should do from now on."""

    wish: Literal["drain", "cordon", "allow", "remove"]
    """Drain: finish what runs here, take nothing new. With `now`: leave at the next checkpoint.
    Cordon: take nothing new. Allow: take jobs again. Remove: never come back without a token."""
    reason: str = ""
    now: bool = False


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that has happened in the fleet, with the reason."""

    number: int
    """Counted from 1, without a gap, over all restarts of the coordinator."""
    time: float
    """Unix time in seconds."""
    kind: str
    """`job`, `node`, `token`, `person`, `coordinator`."""
    subject: str
    """Which job, node, … it is about."""
    what: str
    """The new state, or a short machine-readable name of what happened."""
    reason: str = ""
    by: str = ""
    """Who caused it, where somebody did."""
    fields: dict[str, Any] = {}


class TokenWish(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /v1/tokens`: make a join token."""

    role: Literal["node", "person"] = "node"
    name: str = ""
    """Whom it is for; a person needs one, a node takes its own."""
    uses: int = 1
    seconds: float = 3600.0
    """How long it is good for."""


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A new join token, and where to take it."""

    token: str
    address: str
    """HOST:PORT of the coordinator as other machines reach it."""
    expires: float
    """Unix time in seconds."""
    uses: int


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /v1/join`: a certificate for a key, in exchange for a token."""

    token: str
    name: str
    """The node's or the person's name."""
    request: str
    """The certificate signing request, PEM."""


class RenewRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /v1/renew`: another certificate for the one that the connection was made with."""

    request: str


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate of the fleet and that of its authority, both PEM."""

    certificate: str
    authority: str
    name: str = ""
    """Whom the certificate names."""


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody with a certificate."""

    name: str
    since: float
    """Unix time in seconds."""
    withdrawn: bool = False


class People(msgspec.Struct, frozen=True, kw_only=True):
    """What `GET /v1/people` answers."""

    people: tuple[Person, ...]


class StopRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Stop a job: first with a checkpoint; asked again, or with `now`, at once."""

    reason: str
    now: bool = False


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was refused, for a person."""

    message: str
    hint: str = ""
    user_error: bool = False
