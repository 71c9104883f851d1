"""How a generation ended, and how a job did."""

from __future__ import annotations

from enum import Enum
from typing import Any

import msgspec

from llamaforge.spec.states import FailureClass, JobState

RESUME_HINT = "continue from its newest checkpoint with the same command and --auto-resume"


class Setback(str, Enum):
    """What ended a generation but need not end its job."""

    GAVE_WAY = "gave way"
    """A worker left or has become busy: nobody's fault, and nothing that could come again."""
    LOST = "lost"
    """A node or a rank is gone, or a connection broke: others can take its place."""
    ERROR = "error"
    """A rank failed with words or an exit code of its own: the same may come again."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a generation ended; with a state of None the job goes on."""

    state: JobState | None
    """DONE, STOPPED or FAILED; None: try again with the nodes that are there."""
    reason: str
    hint: str = ""
    user_error: bool = False
    proof: dict[str, Any] | None = None
    setback: Setback | None = None
    """Set where the job can be tried again; None when its end is final."""
    said: str = ""
    """What failed, without saying where: the same words mean the same failure."""
    failure: FailureClass | None = None
    """Its class; None where nothing failed."""
    node: str = ""
    """Where the first cause was; empty where nothing failed."""
    full_disk: bool = False
    """A disk is full: the job can pause until there is room again, and nobody is to blame."""
