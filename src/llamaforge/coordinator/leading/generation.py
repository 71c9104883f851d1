"""One membership of a job, from StartRanks to the last rank's exit: a state machine without I/O.

    STARTING ──► RUNNING ──► FINISHING ──► (over)
        │           │  └───► STOPPING ──► FINISHING
        └───────────┴──────► ENDING ───────► (over)

It hears what workers say, tells what to send through `send`, and knows a deadline; the conductor
(`leading.conductor`) owns sockets and time. What it hears is written down (`leading.inputs`), so
that a coordinator that was started again makes the same machine from the same inputs; what it then
sends once more, workers know already and pass over.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Literal

from llamaforge.bundle.manifest import Manifest
from llamaforge.coordinator.leading import cause
from llamaforge.coordinator.leading.cause import Cause
from llamaforge.coordinator.leading.outcome import RESUME_HINT, Outcome, Setback
from llamaforge.errors import LlamaForgeError, NoSpace
from llamaforge.spec import ranks
from llamaforge.spec.job import Job
from llamaforge.spec.script import ScriptJob
from llamaforge.spec.states import JobState
from llamaforge.wire.messages import (
    CannotStart,
    FromCoordinator,
    Peer,
    RankExited,
    Rendezvous,
    StartRanks,
    StopRanks,
    Uploaded,
)
from llamaforge.wire.updates import NodeRanks

END_SECONDS = 20.0
"""How long ranks that were told to end may take; workers kill them long before."""
CAUSE_SECONDS = 0.5
"""How long a rank that died may take to be known as dead, after others have missed it."""
LEAVE_SECONDS = 30.0
"""How long ranks may take to exit after rank 0 has finished."""


class Phase(str, Enum):
    """Where a generation is."""

    STARTING = "starting"
    """Workers fetch files and start ranks; ranks load and meet."""
    RUNNING = "running"
    """Rank 0 has reported a metric."""
    STOPPING = "stopping"
    """Ranks were asked to save a checkpoint and leave."""
    FINISHING = "finishing"
    """Rank 0 is done; artifacts are on their way."""
    ENDING = "ending"
    """Something failed, or a second stop came: ranks are being ended."""


class Generation:
    """The ranks of one generation and what has become of them.

    Args:
        work: the job, or the script.
        number: counts from 1.
        manifest: the job's files.
        members: who runs which ranks.
        send: gives a node's worker a message.
        clock: seconds that only grow.
        stop_seconds: how long ranks may take to save a checkpoint and leave.
        peers: the members as the others reach them, in the order of their ranks.
        restarts: how often a script's ranks have been started again.
    """

    def __init__(
        self,
        work: Job | ScriptJob,
        number: int,
        manifest: Manifest,
        members: tuple[NodeRanks, ...],
        *,
        send: Callable[[str, FromCoordinator], None],
        clock: Callable[[], float],
        stop_seconds: float,
        peers: tuple[Peer, ...] = (),
        restarts: int = 0,
    ) -> None:
        self.work, self.number, self.manifest, self.members = work, number, manifest, members
        self.peers, self.restarts = peers, restarts
        self.clock = clock
        """Seconds that only grow; replaced once old inputs have been heard again."""
        self.phase, self.reason = Phase.STARTING, "workers fetch files and start ranks"
        self.deadline: float | None = None
        """When to call `tick`."""
        self._send, self._stop_seconds = send, stop_seconds
        self._alive: dict[int, str] = {
            rank: member.node
            for member in members
            for rank in range(member.first_rank, member.first_rank + member.count)
        }
        self._nodes = dict(self._alive)
        self._causes: list[Cause] = []
        self._busy: list[str] = []
        self._result: ranks.Finished | None = None
        """What rank 0 has said about its end."""
        self._finished: ranks.Finished | None = None
        """The same, once it holds for all ranks."""
        self._cut_short = False
        """Whether a rank has ended otherwise than with exit code 0."""
        self._uploaded = False
        self.trains = False
        """Whether rank 0 has reported a metric."""
        self._stop_reason = ""
        """Why the job should stop; empty when nobody wants its end."""
        self._leavers: dict[str, str] = {}
        """Nodes whose workers were told to end, and why: only this generation ends with them."""
        self._pardoned = False
        """Ranks are being ended for no fault of theirs: what they say then is no cause."""
        self._given_up = False
        self._waits_for_cause = False

    @property
    def world_size(self) -> int:
        """Ranks of the generation."""
        return len(self._nodes)

    @property
    def over(self) -> bool:
        """Whether every rank is accounted for and nothing more will arrive."""
        if self._given_up:
            return True
        waits_for_artifacts = self._finished is not None and not self._uploaded and not self._causes
        return not self._alive and not waits_for_artifacts

    @property
    def lingering(self) -> frozenset[str]:
        """Nodes that still run a rank as far as is known."""
        return frozenset(self._alive.values())

    @property
    def _asked_to_leave(self) -> bool:
        return bool(self._stop_reason or self._leavers)

    # ── what happens ──────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Tells every member's worker to start its ranks."""
        for member in self.members:
            self._send(
                member.node,
                StartRanks(
                    job=self.work if isinstance(self.work, Job) else None,
                    script=self.work if isinstance(self.work, ScriptJob) else None,
                    peers=self.peers,
                    restarts=self.restarts,
                    generation=self.number,
                    manifest=self.manifest,
                    first_rank=member.first_rank,
                    count=member.count,
                    world_size=self.world_size,
                ),
            )

    def said(self, rank: int, report: ranks.FromRank) -> None:
        """A rank reported something."""
        node = self._nodes.get(rank)
        if node is None:
            return
        if isinstance(report, ranks.StoreReady) and rank == 0:
            self._introduce(report)
            if isinstance(self.work, ScriptJob) and self.phase is Phase.STARTING:
                self._enter(Phase.RUNNING, "the script runs")
        elif isinstance(report, ranks.Metric):
            self.trains = True
            if self.phase is Phase.STARTING:
                self._enter(Phase.RUNNING, "ranks have met and train")
        elif isinstance(report, ranks.Finished) and rank == 0:
            self._result = report
            self._take_result()
        elif isinstance(report, ranks.Failed) and self._asked_to_leave and not self.trains:
            self._dismiss(self.reason)  # there was nothing to save yet
        elif isinstance(report, ranks.Failed) and self._finished is None:
            self._fail(
                cause.of_error(
                    node,
                    rank,
                    report.kind,
                    report.message,
                    hint=report.hint,
                    user_error=report.user_error,
                )
            )

    def exited(self, message: RankExited) -> None:
        """A rank's process is gone."""
        node = self._alive.pop(message.rank, None)
        if node is None:
            return
        if not self._add_lines(message) and self._unexplained(message):
            self._fail(
                cause.of_exit(
                    node,
                    message.rank,
                    message.code,
                    message.signal,
                    message.last_lines,
                    memory=message.memory,
                )
            )
        self._cut_short = self._cut_short or message.code != 0
        self._take_result()
        if not self._alive and self._finished is None and not self._causes and not self._busy:
            self._lacks_result()

    def cannot_start(self, node: str, message: CannotStart) -> None:
        """A worker runs none of its ranks."""
        self._forget(node)
        if message.busy:
            self._busy.append(node)
            self._pardoned = True
            self._end(f"{node} has become busy: {message.message}")
            return
        if self._asked_to_leave:
            self._dismiss(self.reason)
            return
        self._fail(
            cause.of_error(
                node,
                None,
                message.kind,
                message.message,
                hint=message.hint,
                user_error=message.user_error,
            )
        )

    def lost(self, node: str, why: str) -> None:
        """A node is gone for good, with whatever ran there."""
        had_ranks = node in self._alive.values()
        owes_artifacts = self._nodes[0] == node and not self._uploaded
        self._forget(node)
        done_with_it = self._finished is not None and not owes_artifacts
        if (had_ranks or owes_artifacts) and not done_with_it:
            self._fail(cause.of_lost(node, why))

    def uploaded(self, node: str, message: Uploaded) -> None:
        """The artifacts have arrived, or could not be sent."""
        if message.what != "artifacts":
            return
        stopped = self._finished is not None and self._finished.stopped
        if message.error and not (stopped and self._leavers):  # what goes on owes nothing yet
            what = f"could not deliver the artifacts: {message.error}"
            hint = f"they are kept on {node}, below jobs/ in its worker's state folder"
            self._fail(Cause(node=node, rank=0, what=what, hint=hint))
            return
        self._uploaded = True
        if self._finished is not None:
            self.deadline = self.clock() + LEAVE_SECONDS

    def stop(self, reason: str) -> None:
        """Asks the ranks to save a checkpoint and leave; when asked again, ends them."""
        if self.phase is Phase.ENDING:
            return
        if self._stop_reason:
            self.end_now("stopped again before everything was saved")
            return
        self._stop_reason = reason
        self._save_and_leave(reason)

    def leave(self, node: str, why: str) -> None:
        """A member's worker was told to end: ranks save a checkpoint and leave; the job goes on.

        It may do so while the ranks are asked to leave already, or after they have finished.
        """
        if any(member.node == node for member in self.members):
            self._leavers[node] = why
            self._save_and_leave(f"{node} is leaving ({why})")

    def regroup(self, why: str) -> None:
        """Ranks save a checkpoint and leave, so that the job goes on with other members."""
        self._leavers[""] = why
        self._save_and_leave(why)

    def hangs(self, rank: int, why: str, seconds: float) -> None:
        """Nothing has moved for far too long, and this rank stopped first."""
        node = self._nodes.get(rank)
        if node is not None:
            self._fail(cause.of_hang(node, rank, why, seconds=seconds))

    def end_now(self, reason: str) -> None:
        """Ends the ranks without a checkpoint."""
        self._stop_reason = self._stop_reason or reason
        self._dismiss(reason)

    def folder_failed(self, what: str, *, full: bool = False) -> None:
        """The coordinator can't keep the job's results."""
        kind = NoSpace.__name__ if full else LlamaForgeError.__name__
        self._fail(cause.of_error("coordinator", None, kind, what, user_error=False))

    def tick(self) -> None:
        """The deadline may have come."""
        if self.deadline is None or self.clock() < self.deadline:
            return
        if self._causes and self.phase is not Phase.ENDING:
            self._end(str(cause.first(self._causes)).splitlines()[0])
        elif self.phase is Phase.STOPPING:
            self._dismiss(f"no checkpoint within {self._stop_seconds:.0f} s of being asked to stop")
        elif self.phase is Phase.FINISHING:
            self._tell_all("end", "the job is finished")
            self._enter(Phase.ENDING, "ranks that linger are being ended")
            self.deadline = self.clock() + END_SECONDS
        else:
            self._given_up = True

    def outcome(self) -> Outcome:
        """How it ended; only when `over`."""
        finished = self._finished if self._uploaded else None
        if finished is not None and not finished.stopped:
            return Outcome(state=JobState.DONE, reason="finished", proof=finished.proof)
        if finished is not None and self._stop_reason:
            return self._stopped("a checkpoint is saved", finished.proof)
        if self._causes and not self._explained_by_leavers():
            return cause.first(self._causes).outcome()
        if self._stop_reason:
            return self._stopped("ended without a new checkpoint", None)
        return self._gave_way(finished)

    # ── inside ────────────────────────────────────────────────────────────────────────────────

    def _take_result(self) -> None:
        """Rank 0's end is the job's. Only a script's ranks may go on after it, and may fail yet."""
        if self._result is None or self._finished is not None:
            return
        whole = self._alive.keys() <= {0} and not self._cut_short
        if isinstance(self.work, ScriptJob) and not self._result.stopped and not whole:
            return
        self._finished = self._result
        if self._uploaded:
            self.deadline = self.clock() + LEAVE_SECONDS
        elif self.phase is not Phase.ENDING:
            self._enter(Phase.FINISHING, "artifacts are on their way")

    def _stopped(self, what: str, proof: dict[str, Any] | None) -> Outcome:
        reason = f"{self._stop_reason}; {what}"
        return Outcome(state=JobState.STOPPED, reason=reason, hint=RESUME_HINT, proof=proof)

    def _gave_way(self, finished: ranks.Finished | None) -> Outcome:
        """Nobody wants the job's end, and nothing failed."""
        if self._leavers or self._busy:
            left = ", ".join(
                f"{node} left ({why})" if node else why for node, why in self._leavers.items()
            )
            proof = finished.proof if finished else None
            return Outcome(
                state=None, reason=left or self.reason, proof=proof, setback=Setback.GAVE_WAY
            )
        what = f"a rank was told to end ({self.reason})"
        return Outcome(state=JobState.FAILED, reason=what, setback=Setback.LOST, said=what)

    def _explained_by_leavers(self) -> bool:
        """Whether what broke just follows from a worker's leaving, perhaps in a hurry."""
        return bool(self._leavers) and cause.first(self._causes).consequence

    def _save_and_leave(self, reason: str) -> None:
        """Asks the ranks to save a checkpoint and leave, unless they are on their way out."""
        if self.phase not in (Phase.STARTING, Phase.RUNNING):
            return
        self._enter(Phase.STOPPING, f"{reason}; saving a checkpoint")
        self.deadline = self.clock() + self._stop_seconds
        self._tell_all("checkpoint", reason)

    def _dismiss(self, reason: str) -> None:
        """Ends the ranks for no fault of theirs."""
        self._pardoned = not self._causes
        self._end(reason)

    def _introduce(self, store: ranks.StoreReady) -> None:
        for member in self.members:
            if member.first_rank + member.count > 1:  # has a rank other than 0
                self._send(
                    member.node,
                    Rendezvous(
                        job_id=self.work.id,
                        generation=self.number,
                        host=store.host,
                        port=store.port,
                    ),
                )

    def _add_lines(self, message: RankExited) -> bool:
        """Adds its end to what the rank reported itself. Returns whether it had."""
        for place, known in enumerate(self._causes):
            if known.rank == message.rank:
                end = (message.code, message.signal, message.last_lines)
                self._causes[place] = cause.with_end(known, *end)
                return True
        return False

    def _unexplained(self, message: RankExited) -> bool:
        return message.code != 0 and not message.ordered and self._finished is None

    def _lacks_result(self) -> None:
        if self._asked_to_leave:
            return
        what = "ended without a result and without an error"
        self._causes.append(Cause(node=self._nodes[0], rank=0, what=what, setback=Setback.ERROR))

    def _forget(self, node: str) -> None:
        self._alive = {rank: where for rank, where in self._alive.items() if where != node}

    def _fail(self, why: Cause) -> None:
        if self._pardoned:
            return
        self._causes.append(why)
        if not why.consequence or self.phase is Phase.ENDING:
            self._end(str(why).splitlines()[0])
        elif not self._waits_for_cause:
            self._waits_for_cause = True
            self.deadline = self.clock() + CAUSE_SECONDS

    def _end(self, reason: str) -> None:
        if self.phase is Phase.ENDING:
            return
        self._enter(Phase.ENDING, reason)
        self.deadline = self.clock() + END_SECONDS
        self._tell_all("end", reason)

    def _tell_all(self, how: Literal["checkpoint", "end"], reason: str) -> None:
        for node in dict.fromkeys(self._alive.values()):
            order = StopRanks(job_id=self.work.id, generation=self.number, how=how, reason=reason)
            self._send(node, order)

    def _enter(self, phase: Phase, reason: str) -> None:
        self.phase, self.reason = phase, reason
