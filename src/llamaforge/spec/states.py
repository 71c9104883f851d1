"""The states of jobs and nodes, each with the reason that a person is told."""

from __future__ import annotations

from enum import Enum


class JobState(str, Enum):
    """Where a job is in its life. The last three are final."""

    QUEUED = "queued"
    """Accepted; waits for workers."""
    STARTING = "starting"
    """A generation is being made: files are fetched, ranks started."""
    RUNNING = "running"
    """Ranks have met and train."""
    FINISHING = "finishing"
    """Training is over; artifacts are on their way to the coordinator."""
    DONE = "done"
    """Artifacts and proof are in the job's folder."""
    STOPPED = "stopped"
    """Stopped on request after a checkpoint; can be resumed."""
    FAILED = "failed"
    """Ended without a result; the reason names node, rank and cause."""

    @property
    def final(self) -> bool:
        """Whether the job can't change any more."""
        return self in (JobState.DONE, JobState.STOPPED, JobState.FAILED)


class NodeState(str, Enum):
    """What a node is doing, as its coordinator sees it."""

    WAITING = "waiting"
    """Connected and ready for a job."""
    BUSY = "busy"
    """Runs ranks of a job."""
    LOST = "lost"
    """Its connection is gone."""
