"""One job on this coordinator: its submission, its state, its stream, its folder, its memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from llamaforge.coordinator import told_again
from llamaforge.coordinator.folder import GOES_ON, JobFolder
from llamaforge.coordinator.leading.generation import Generation
from llamaforge.coordinator.leading.inputs import Input
from llamaforge.coordinator.leading.memory import Memory
from llamaforge.coordinator.leading.outcome import Outcome
from llamaforge.coordinator.leading.resumption import Start
from llamaforge.coordinator.ledger.ledger import Ledger
from llamaforge.coordinator.stream import JobStream
from llamaforge.spec import ranks
from llamaforge.spec.job import Job
from llamaforge.spec.script import ScriptJob
from llamaforge.spec.states import JobState
from llamaforge.wire.api import JobStatus, Submission
from llamaforge.wire.messages import RankLog
from llamaforge.wire.updates import (
    Ended,
    GenerationStarted,
    JobUpdate,
    LogLine,
    MetricLine,
    NodeRanks,
    NoteLine,
    StateChanged,
)

MOST_LOG_LINES = 50_000
"""Lines of ranks' output in one job's stream: a rank that prints for ever must not fill a disk."""

log = logging.getLogger("llamaforge.coordinator")


class Keeping(msgspec.Struct, frozen=True, kw_only=True):
    """Where a coordinator keeps jobs."""

    ledger: Ledger
    streams: Path
    """Folder for the jobs' streams."""
    folders: Path
    """Folder for the folders of jobs that name none."""
    barrier: Callable[[], Awaitable[None]]
    """Returns when all that the coordinator knows is durable."""


class JobRecord:
    """A job from submission to end.

    Args:
        submission: what was asked for.
        keeping: where it stands.
        number: the job's place among all jobs of this fleet.
        submitter: who asked.
    """

    def __init__(
        self, submission: Submission, keeping: Keeping, *, number: int = 0, submitter: str = ""
    ) -> None:
        self.submission, self.number, self.submitter = submission, number, submitter
        self._keeping, self._ledger = keeping, keeping.ledger
        self.state, self.reason, self.since = JobState.QUEUED, "", time.time()
        self.submitted = self.since
        self.stop_reason = ""
        """Why somebody wants it to stop; empty when nobody does."""
        self.step = submission.resume_step or 0
        """The last step that stands committed as far as is known."""
        self.memory: Memory | None = None
        self.ended: Ended | None = None
        self.generation = 0
        self.nodes: tuple[str, ...] = ()
        """Nodes of the running generation."""
        self._folder: JobFolder | None = None
        self._restore = False
        """Whether its folder may hold more, or less, than its stream."""
        self._inputs = 0
        self._log_lines = 0
        own = keeping.folders / submission.job_id
        self.path = Path(submission.output_dir or own)
        self.checkpoint_dir = Path(submission.checkpoint_dir or self.path / "checkpoints")
        self.stream = JobStream(
            keeping.streams / f"{submission.job_id}.jsonl", keeping.ledger, keeping.barrier
        )

    @property
    def id(self) -> str:
        """The job's id."""
        return self.submission.job_id

    @property
    def work(self) -> Job | ScriptJob:
        """What it runs."""
        work = self.submission.job or self.submission.script
        assert work is not None
        return work

    @property
    def members(self) -> tuple[NodeRanks, ...]:
        """Who runs which ranks of the generation in office; nobody between two."""
        running = self.memory.running if self.memory is not None else None
        return running.members if running is not None else ()

    @property
    def folder(self) -> JobFolder:
        """The job's folder, open for what the job says.

        Raises:
            UserError: it can't be written.
        """
        if self._folder is None:
            if self._restore:
                told_again.restore(self.path, self.stream.path, self.submission.resume_step)
                self._restore = False
            self._folder = self._open(GOES_ON)
        return self._folder

    # ── beginning ─────────────────────────────────────────────────────────────────────────────

    def begin(self) -> None:
        """Takes a new job down, and makes its folder.

        Raises:
            UserError: the folder can't be written, or is another job's.
        """
        try:
            self._open(self.submission.resume_step).close()  # thousands may wait
        except BaseException:
            self.stream.remove()
            raise
        self.number = self._ledger.jobs.add(
            self.id,
            key=self.submission.key,
            submission=msgspec.json.encode(self.submission),
            submitter=self.submitter,
            reason="submitted",
        )

    @classmethod
    def recovered(cls, row: tuple[Any, ...], keeping: Keeping) -> JobRecord:
        """A job as an earlier process of the coordinator left it.

        Args:
            row: number, submission, submitter, state, reason, since, submitted, step, stop_reason,
                memory, outcome.
            keeping: where it stands.
        """
        number, submission, submitter, state, reason, since, submitted, step, stop, memory, end = (
            row
        )
        record = cls(
            msgspec.json.decode(submission, type=Submission),
            keeping,
            number=int(number),
            submitter=str(submitter or ""),
        )
        record.state, record.reason = JobState(state), str(reason or "")
        record.since, record.submitted = float(since), float(submitted)
        record.step, record.stop_reason = int(step), str(stop or "")
        if memory is not None:
            record.memory = msgspec.json.decode(memory, type=Memory)
        record._restore = not record.state.final
        if end is not None:
            record.ended = msgspec.json.decode(end, type=Ended)
            record.stream.close()
        return record

    def _open(self, resumed: int | None) -> JobFolder:
        return JobFolder(self.work, self.path, self.checkpoint_dir, resumed=resumed)

    # ── what happens ──────────────────────────────────────────────────────────────────────────

    def enter(self, state: JobState, reason: str = "") -> None:
        """Puts the job into a state and tells its followers."""
        if (state, reason) == (self.state, self.reason):
            return
        moved = state is not self.state
        self._ledger.jobs.move(self.id, self.state, state, reason)
        self.state, self.reason = state, reason
        self.since = time.time() if moved else self.since
        log.info("job %s is %s%s", self.id, state.value, f": {reason}" if reason else "")
        self.tell(StateChanged(state=state, reason=reason))

    def wants_stop(self, reason: str, by: str) -> None:
        """Somebody wants the job's end."""
        self.stop_reason = self.stop_reason or reason
        self._ledger.write(
            "UPDATE jobs SET stop_reason = ? WHERE id = ?", self.stop_reason, self.id
        )
        self._ledger.event("job", self.id, "stop", reason, by)

    def last_generation(self) -> int:
        """The highest number of a generation of any job of this name; 0 before the first.

        A worker that has had a generation does nothing when it is told to start it again, so one
        that is resumed, or submitted again under its name, counts on.
        """
        after, last = 0, 0
        while events := self._ledger.events(after, kind="job", subject=self.id):
            after = events[-1].number
            numbers = (event.fields.get("number", 0) for event in events)
            last = max([last, *(number for number in numbers if isinstance(number, int))])
        return last

    def remember(self, memory: Memory) -> None:
        """Keeps what the job's next life on this coordinator needs."""
        if memory != self.memory:
            self.memory = memory
            self._ledger.write(
                "UPDATE jobs SET memory = ? WHERE id = ?", msgspec.json.encode(memory), self.id
            )

    def tell(self, update: JobUpdate) -> None:
        """Tells followers something. Raises OSError where the disk is full."""
        self.stream.add(update)

    def report(self, rank: int, report: ranks.FromRank) -> None:
        """Keeps what a rank says: only rank 0's words reach metrics, events and followers."""
        if rank != 0:
            return
        if isinstance(report, ranks.Metric):
            self.step = max(self.step, int(report.line.get("step", 0)))
            self.folder.metric(report.line)
            self.tell(MetricLine(line=report.line))
        elif isinstance(report, ranks.Note):
            self.note(report.kind, report.text, **report.fields)

    def note(self, kind: str, text: str, **fields: object) -> None:
        """Records one event and tells it to followers."""
        self.folder.event(kind, text, **fields)
        self.tell(NoteLine(kind=kind, text=text, fields=fields, time=round(time.time(), 3)))

    def log_line(self, node: str, message: RankLog) -> None:
        """Passes a line of a rank's output on."""
        self._log_lines += 1
        if self._log_lines <= MOST_LOG_LINES:
            self.tell(LogLine(node=node, rank=message.rank, text=message.line))
        elif self._log_lines == MOST_LOG_LINES + 1:
            text = "further output of the ranks is only in their workers' logs"
            self.tell(LogLine(node=node, rank=message.rank, text=text))

    # ── generations ───────────────────────────────────────────────────────────────────────────

    def generation_begins(self, generation: Generation, *, after: int) -> None:
        """Tells who runs the steps from `after` on."""
        started = GenerationStarted(
            generation=generation.number,
            world_size=generation.world_size,
            nodes=generation.members,
            after=after,
            time=round(time.time(), 3),
        )
        line = told_again.event_of(started)
        self.folder.event(**line)
        self._ledger.event("job", self.id, "generation", line["text"], number=generation.number)
        self.tell(started)

    def took(self, generation: int, told: Input) -> None:
        """A generation has heard something that can change it."""
        self._inputs += 1
        self._ledger.write(
            "INSERT INTO inputs (job, generation, number, body) VALUES (?, ?, ?, ?)",
            self.id,
            generation,
            self._inputs,
            msgspec.json.encode(told),
        )

    def inputs(self, generation: int) -> list[Input]:
        """What a generation has heard, in order."""
        rows = self._ledger.read(
            "SELECT number, body FROM inputs WHERE job = ? AND generation = ? ORDER BY number",
            self.id,
            generation,
        )
        self._inputs = max((number for number, _ in rows), default=0)
        return [msgspec.json.decode(body, type=Input) for _, body in rows]

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
        self._ledger.write(
            "DELETE FROM inputs WHERE job = ? AND generation < ?", self.id, generation
        )
        self._ledger.write("UPDATE jobs SET step = ? WHERE id = ?", self.step, self.id)

    # ── the end ───────────────────────────────────────────────────────────────────────────────

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
            log.warning("job %s: %s can't be written: %s", self.id, self.path, why)
            if outcome.state is not JobState.FAILED:
                outcome = _not_kept(self.path, why)
        assert outcome.state is not None
        with suppress(OSError):
            self.enter(outcome.state, outcome.reason)
        self.nodes = ()
        self.ended = Ended(
            state=outcome.state,
            reason=outcome.reason,
            hint=outcome.hint,
            user_error=outcome.user_error,
            output_dir=str(self.path),
            proof=outcome.proof,
            failure=outcome.failure.value if outcome.failure else "",
        )
        self._ledger.write(
            "UPDATE jobs SET outcome = ?, memory = NULL, step = ? WHERE id = ?",
            msgspec.json.encode(self.ended),
            self.step,
            self.id,
        )
        self._ledger.write("DELETE FROM inputs WHERE job = ?", self.id)
        with suppress(OSError):
            self.tell(self.ended)

    def _close_folder(self, outcome: Outcome) -> None:
        assert outcome.state is not None
        if not self.path.is_dir():
            return
        try:
            if outcome.proof is not None:
                self.folder.proof(outcome.proof)
            self.folder.event("ended", outcome.reason, state=outcome.state.value)
        finally:
            self.folder.close()
            self._folder = None

    def unwritable(self, why: OSError) -> str:
        """What to say where the job's folder, or its stream, refuses."""
        return f"{why.filename or self.path} can't be written: {why.strerror or why}"

    def close(self) -> None:
        """The coordinator ends; the job doesn't."""
        if self._folder is not None:
            with suppress(OSError):
                self._folder.close()
            self._folder = None
        self.stream.close()

    def remove(self) -> None:
        """Forgets a job that has ended; its folder stays."""
        self.stream.remove()
        self._ledger.jobs.remove(self.id)

    def status(self) -> JobStatus:
        """What `llamaforge status` shows."""
        work = self.work
        return JobStatus(
            id=self.id,
            state=self.state,
            reason=self.reason,
            since=self.since,
            submitted=self.submitted,
            output_dir=str(self.path),
            total_steps=work.total_steps if isinstance(work, Job) else 0,
            step=self.step,
            updates=self.stream.length,
            submitter=self.submitter,
            priority=self.submission.wishes.priority,
            kind="train" if isinstance(work, Job) else "run",
            nodes=self.nodes,
            generation=self.generation,
            own_folder=not self.submission.output_dir,
            failure=self.ended.failure if self.ended else "",
        )


def _not_kept(folder: Path, why: OSError) -> Outcome:
    return Outcome(
        state=JobState.FAILED,
        reason=f"the job's end could not be written to {folder}: {why.strerror or why}",
        hint="make room there; its checkpoints continue with the same command and --auto-resume",
    )
