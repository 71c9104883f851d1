"""Where a rank stands: its place in one generation, and the folders it may use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Place:
    """One rank's place in one generation. Nothing here may change a job's result."""

    generation: int
    rank: int
    world_size: int
    local_rank: int
    node: str
    """The node's name, for messages and shares."""
    address: str
    """IP address of this node that the other ranks reach."""


@dataclass(frozen=True, kw_only=True)
class Folders:
    """The folders of one rank on its node."""

    bundle: Path
    """The job's files, laid out: `data/`, `model/`, and so on (see `spec.ranks.Assignment`)."""
    checkpoints: Path
    """Where rank 0 commits checkpoints."""
    artifacts: Path
    """Where rank 0 puts what belongs to the job's folder: adapter, proof, plot."""
    cache: Path
    """Tokenised rows, kept between jobs."""
    resume: Path | None = None
    """A verified checkpoint to start from."""
