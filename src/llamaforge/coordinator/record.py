"""One job on this coordinator: its submission, its state, its stream and its folder."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from pathlib import Path

from llamaforge.coordinator.folder import JobFolder
from llamaforge.coordinator.generation import Generation
from llamaforge.coordinator.outcome import Outcome
from llamaforge.coordinator.resumption import Start
from llamaforge.coordinator.stream import JobStream
from llamaforge.spec import ranks
from llamaforge.spec.states import JobState
from llamaforge.wire.api import JobStatus, Submission
from llamaforge.wire.messages import RankLog
from llamaforge.wire.updates import (
    Ended,
    GenerationStarted,
    LogLine,
    MetricLine,
    NoteLine,
    StateChanged,
)

MOST_LOG_LINES = 50_000
"""Lines of ranks' output in one job's stream: a rank that prints for ever must not fill a disk."""

log = logging.getLogger("llamaforge.coordinator")


class JobRecord:
    """A job from submission to end.

    Args:
        submission: what was asked for.
        streams: the folder for the job's stream.
    """

    def __init__(self, submission: Submission, streams: Path) -> None:
        self.submission = submission
        self.state, self.reason, self.since = JobState.QUEUED, "", time.time()
        self.submitted = self.since
        self.stream = JobStream(streams / f"{submission.job_id}.jsonl")
        self.folder = JobFolder(submission)
        self.stop_reason = ""
        """Why somebody wants it to stop; empty when nobody does."""
        self.step = submission.resume_step or 0
        """The last step that stands committed as far as is known."""
        self._log_lines = 0

    @property
    def id(self) -> str:
        """The job's id."""
        return self.submission.job_id

    def enter(self, state: JobState, reason: str = "") -> None:
        """Puts the job into a state and tells its followers."""
        if (state, reason) == (self.state, self.reason):
            return
        self.state, self.reason, self.since = state, reason, time.time()
        log.info("job %s is %s%s", self.id, state.value, f": {reason}" if reason else "")
        self.stream.add(StateChanged(state=state, reason=reason))

    def report(self, rank: int, report: ranks.FromRank) -> None:
        """Keeps what a rank says: only rank 0's words reach metrics, events and followers."""
        if rank != 0:
            return
        if isinstance(report, ranks.Metric):
            self.step = max(self.step, int(report.line.get("step", 0)))
            self.folder.metric(report.line)
            self.stream.add(MetricLine(line=report.line))
        elif isinstance(report, ranks.Note):
            self.note(report.kind, report.text, **report.fields)

    def note(self, kind: str, text: str, **fields: object) -> None:
        """Records one event and tells it to followers."""
        self.folder.event(kind, text, **fields)
        self.stream.add(NoteLine(kind=kind, text=text, fields=fields))

    def generation_begins(self, generation: Generation, *, after: int) -> None:
        """Tells who runs the steps from `after` on."""
        shape = ", ".join(f"{m.count} on {m.node}" for m in generation.members)
        self.folder.event(
            "generation",
            f"generation {generation.number}: {generation.world_size} ranks ({shape})",
            generation=generation.number,
            world_size=generation.world_size,
            nodes={m.node: m.count for m in generation.members},
            after=after,
        )
        self.stream.add(
            GenerationStarted(
                generation=generation.number,
                world_size=generation.world_size,
                nodes=generation.members,
                after=after,
            )
        )

    def goes_on(self, generation: int, why: str, *, start: Start) -> None:
        """A generation has ended and the job has not: later steps are done, and told, again.

        Raises:
            OSError: the folder refuses.
        """
        reached, self.step = self.step, start.step
        self.folder.rewind(start.step if start.resumed else None)
        where = f"after step {start.step}" if start.resumed else "from its first step"
        self.note(
            "continues",
            f"generation {generation} ended at step {reached}: {why.splitlines()[0]}; "
            f"the job goes on {where}",
            generation=generation,
            step=reached,
            after=start.step,
            why=why,
        )

    def log_line(self, node: str, message: RankLog) -> None:
        """Passes a line of a rank's output on."""
        self._log_lines += 1
        if self._log_lines <= MOST_LOG_LINES:
            self.stream.add(LogLine(node=node, rank=message.rank, text=message.line))
        elif self._log_lines == MOST_LOG_LINES + 1:
            text = "further output of the ranks is only in their workers' logs"
            self.stream.add(LogLine(node=node, rank=message.rank, text=text))

    async def draw(self) -> None:
        """Draws the loss; a job does not fail for want of a picture."""
        trouble = await self.folder.draw_aside()
        if trouble:
            with suppress(OSError):
                self.note("plot", f"loss.svg could not be drawn: {trouble}")

    def end(self, outcome: Outcome) -> None:
        """Closes the folder and the stream; never fails, so that every job has an end."""
        try:
            self._close_folder(outcome)
        except OSError as why:
            log.warning("job %s: %s can't be written: %s", self.id, self.folder.path, why)
            if outcome.state is not JobState.FAILED:
                outcome = _not_kept(self.folder.path, why)
        assert outcome.state is not None
        with suppress(OSError):
            self.enter(outcome.state, outcome.reason)
        self.stream.add(
            Ended(
                state=outcome.state,
                reason=outcome.reason,
                hint=outcome.hint,
                user_error=outcome.user_error,
                output_dir=self.submission.output_dir,
                proof=outcome.proof,
            )
        )

    def _close_folder(self, outcome: Outcome) -> None:
        assert outcome.state is not None
        try:
            if outcome.proof is not None:
                self.folder.proof(outcome.proof)
            self.folder.event("ended", outcome.reason, state=outcome.state.value)
        finally:
            self.folder.close()

    def status(self) -> JobStatus:
        """What `llamaforge status` shows."""
        return JobStatus(
            id=self.id,
            state=self.state,
            reason=self.reason,
            since=self.since,
            submitted=self.submitted,
            output_dir=self.submission.output_dir,
            total_steps=self.submission.job.total_steps,
            step=self.step,
            updates=self.stream.length,
        )


def _not_kept(folder: Path, why: OSError) -> Outcome:
    return Outcome(
        state=JobState.FAILED,
        reason=f"the job's end could not be written to {folder}: {why.strerror or why}",
        hint="make room there; its checkpoints continue with the same command and --auto-resume",
    )
