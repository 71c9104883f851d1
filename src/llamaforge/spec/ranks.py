"""What a worker tells a rank and what a rank says back: the words on their private pipe.

A rank is started as `python -m llamaforge.train.rank --assignment FILE --control-fd N`. The file
holds an `Assignment`; the descriptor is one end of a socket pair that carries one JSON message a
line. The same reports are what the coordinator records, so they are defined here, below both.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llamaforge.spec.fleet import NETWORK_TIMEOUT
from llamaforge.spec.job import Job


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """One rank's place in one generation of a job."""

    job: Job
    generation: int
    """Counts from 1; each membership of the job has its own."""
    rank: int
    world_size: int
    local_rank: int
    """0 for the first rank on this node: it does what a node needs only once."""
    node: str
    """The node's name, for messages."""
    address: str
    """IP address of this node that the other ranks reach; the data plane binds to it."""
    bundle: str
    """Folder with the job's files: `data/train.jsonl`, `model/…`, and the optional
    `data/heldout.jsonl`, `template/chat_template.jinja`, `resume/…` (a checkpoint)."""
    workdir: str
    """This node's folder for the job: checkpoints and artifacts are written below it."""
    cache_dir: str
    """Where tokenised rows are kept between jobs."""
    network_timeout: float = NETWORK_TIMEOUT
    """Seconds that a collective waits for a peer that is silent but not gone."""


# ── said by the worker ────────────────────────────────────────────────────────────────────────


class Rendezvous(msgspec.Struct, frozen=True, kw_only=True, tag="rendezvous"):
    """Where the generation's store listens. Sent to every rank except rank 0, which hosts it."""

    host: str
    port: int


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """Save a checkpoint at the next step boundary and leave."""

    reason: str


ToRank = Rendezvous | Stop


# ── said by the rank ──────────────────────────────────────────────────────────────────────────


class StoreReady(msgspec.Struct, frozen=True, kw_only=True, tag="store_ready"):
    """Rank 0 listens; the others may connect."""

    host: str
    port: int


class Metric(msgspec.Struct, frozen=True, kw_only=True, tag="metric"):
    """One line of metrics.jsonl, as written there (see `monitor.metrics`)."""

    line: dict[str, Any]


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """Where the job is, told by every rank to its own worker, for its status and its journal."""

    job: str
    """The job's id."""
    generation: int
    rank: int
    world_size: int
    nodes: int
    step: int
    """Steps that are committed."""
    total_steps: int
    tokens_per_second: float | None = None
    """Of all ranks together, in the last step; None before the first one."""


class Note(msgspec.Struct, frozen=True, kw_only=True, tag="note"):
    """One line of events.jsonl: something worth telling a person once."""

    kind: str
    """A short machine-readable name: `guarantee`, `lint`, `checkpoint`, `resume`, `sample`, …"""
    text: str
    """One sentence for a person."""
    fields: dict[str, Any] = {}


class CheckpointDone(msgspec.Struct, frozen=True, kw_only=True, tag="checkpoint"):
    """A checkpoint stands, complete and renamed, at `path` on this node."""

    step: int
    path: str


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """Rank 0 is done. `artifacts` is the folder whose files belong to the job's folder."""

    artifacts: str
    proof: dict[str, Any]
    stopped: bool = False
    """True when it left early because it was told to stop; the job can be resumed."""


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """This rank ends without a result. `kind` is the name of the error's class."""

    kind: str
    message: str
    hint: str = ""
    user_error: bool = False
    """True when the person who asked can fix it: the exit code is then 2."""


FromRank = StoreReady | Metric | Progress | Note | CheckpointDone | Finished | Failed
