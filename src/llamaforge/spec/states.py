"""The states of jobs and nodes, which may follow which, and that each has a reason for people.

A change that is not in the table is a mistake of the program: the ledger refuses to write it down.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class JobState(str, Enum):
    """Where a job is in its life. The last three are final."""

    QUEUED = "queued"
    """Accepted; waits for nodes. The reason says for which."""
    STARTING = "starting"
    """A generation is being made: nodes are looked at, files are fetched, ranks started."""
    RUNNING = "running"
    """Ranks have met and train."""
    PAUSED = "paused"
    """Something has to get better first, such as a full disk; the job goes on by itself then."""
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


_ENDS = (JobState.STOPPED, JobState.FAILED)
JOB_MOVES: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.STARTING, JobState.PAUSED, *_ENDS}),
    JobState.STARTING: frozenset(
        {
            JobState.QUEUED,
            JobState.RUNNING,
            JobState.PAUSED,
            JobState.FINISHING,
            JobState.DONE,
            *_ENDS,
        }
    ),
    JobState.RUNNING: frozenset(
        {JobState.QUEUED, JobState.PAUSED, JobState.FINISHING, JobState.DONE, *_ENDS}
    ),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.STARTING, *_ENDS}),
    JobState.FINISHING: frozenset({JobState.QUEUED, JobState.PAUSED, JobState.DONE, *_ENDS}),
    JobState.DONE: frozenset(),
    JobState.STOPPED: frozenset(),
    JobState.FAILED: frozenset(),
}
"""Which state may follow which; a state may always be entered again with another reason."""


class NodeState(str, Enum):
    """What a node is doing, as its coordinator sees it."""

    READY = "ready"
    """Connected, and takes jobs."""
    BUSY = "busy"
    """Runs ranks of a job, or is busy with something that isn't this coordinator's."""
    DISCONNECTED = "disconnected"
    """Its connection is broken, and it may be back any moment; a job that runs there goes on."""
    LOST = "lost"
    """Its connection has been gone for too long, or it was ended; what ran there is given up."""
    DRAINING = "draining"
    """Runs a job to its end, or to its next checkpoint, and takes no other."""
    CORDONED = "cordoned"
    """Takes no jobs until somebody allows it again."""


class FailureClass(str, Enum):
    """Why a generation ended without a result, as far as it decides whether to try again."""

    NODE_LOST = "node lost"
    """A node, a connection or a rank is gone: nothing that the job did."""
    USER = "user's error"
    """What was asked can't be done as written; trying again is in vain."""
    MEMORY = "out of memory"
    """A rank was killed, or failed, for want of memory."""
    DATA = "data"
    """Rows, a model or a checkpoint can't be used; trying again is in vain."""
    ENVIRONMENT = "environment"
    """Something about a machine: a disk, a library, a port, a driver."""
    HANG = "hang"
    """No step was committed for far longer than usual."""
    ERROR = "error"
    """A rank failed with words or an exit code of its own."""
