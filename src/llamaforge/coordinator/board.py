"""The jobs of a fleet: taken down, given nodes, led side by side, and taken up again after a crash.

Each job that has not ended has a conductor (`coordinator.leading.conductor`). Conductors ask for
nodes; in one round (`coordinator.scheduler`) all who ask are looked at together.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from pathlib import Path

from llamaforge.bundle.store import BlobStore
from llamaforge.coordinator.alarm import Alarm
from llamaforge.coordinator.http import hearsay
from llamaforge.coordinator.leading.conductor import Conductor, OfJob
from llamaforge.coordinator.leading.outcome import Outcome
from llamaforge.coordinator.leading.resumption import newest
from llamaforge.coordinator.ledger.ledger import Ledger
from llamaforge.coordinator.node import Node
from llamaforge.coordinator.nodes import Nodes
from llamaforge.coordinator.record import JobRecord, Keeping
from llamaforge.coordinator.scheduler import schedule
from llamaforge.errors import FleetError, UserError
from llamaforge.spec.job import Job
from llamaforge.spec.states import JobState
from llamaforge.wire.api import NodeWish, Submission
from llamaforge.wire.messages import FromWorker, Leaving, Roster

REMEMBERED = 1000
"""Ended jobs that the coordinator still knows."""
DISK_SECONDS = 1.0
"""Between two tries while the disk takes nothing."""
GATHER_SECONDS = 5.0
"""How long a job that takes all it can get waits for nodes of a job that is just finishing."""
ROUND_SECONDS = 0.05
"""Between two rounds of scheduling at least."""
ROUND_SHARE = 0.2
"""Of its time that the coordinator spends on rounds at most: in a large fleet one takes a while."""

_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ROW = (
    "SELECT number, submission, submitter, state, reason, since, submitted, step, stop_reason, "
    "memory, outcome FROM jobs ORDER BY number"
)

log = logging.getLogger("llamaforge.coordinator")


class Board:
    """Runs jobs.

    Args:
        state: folder for the jobs' streams and folders.
        fleet: this fleet's id.
        process: this coordinator process's id.
        ledger: what the coordinator remembers.
        store: its blobs.
        node_grace: seconds for which a node may be without a connection.
        stop_seconds: how long ranks may take to save a checkpoint and leave.
        return_grace: seconds that a job waits for a node that left or was lost.
    """

    def __init__(
        self,
        state: Path,
        fleet: str,
        process: str,
        ledger: Ledger,
        store: BlobStore,
        *,
        node_grace: float,
        stop_seconds: float,
        return_grace: float,
    ) -> None:
        self.ledger, self._store = ledger, store
        self._alarm = Alarm()
        self._stop_seconds, self._return_grace = stop_seconds, return_grace
        self._keeping = Keeping(
            ledger=ledger,
            streams=state / "streams",
            folders=state / "jobs",
            barrier=self.durable,
        )
        self.nodes = Nodes(
            fleet,
            process,
            node_grace,
            ledger,
            barrier=self.durable,
            heard=self._heard,
            lost=self._node_lost,
            changed=self._changed,
            spared=self._spares,
        )
        self._jobs: dict[str, JobRecord] = {}
        self._conductors: dict[str, Conductor] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._gathering: dict[str, float] = {}
        """Jobs that could start with fewer nodes than they would take, and until when they wait."""
        self._full = False
        self._running = False

    def reconfigure(self, *, node_grace: float, stop_seconds: float, return_grace: float) -> None:
        """Other patience from now on; a job keeps what it began with until its next start."""
        self.nodes.grace = node_grace
        self._stop_seconds, self._return_grace = stop_seconds, return_grace

    async def durable(self) -> None:
        """Returns when all that is known now is durable, however long a full disk takes."""
        while True:
            try:
                await self.ledger.settled()
                self._full = False
                return
            except OSError as why:
                if not self._full:
                    log.error("the ledger can't be written (%s): nothing goes on until it can", why)
                self._full = True
                await asyncio.sleep(DISK_SECONDS)

    # ── jobs ──────────────────────────────────────────────────────────────────────────────────

    def jobs(self) -> list[JobRecord]:
        """All remembered jobs, oldest first."""
        return list(self._jobs.values())

    def job(self, job_id: str) -> JobRecord:
        """One job. Raises FleetError when it is not known."""
        try:
            return self._jobs[job_id]
        except KeyError:
            raise FleetError(
                f"job {job_id!r} is not known to this coordinator",
                hint="llamaforge jobs --all lists those that are",
            ) from None

    def blobs_in_use(self) -> set[str]:
        """Digests of the bundles of all jobs that have not ended."""
        running = (job for job in self._jobs.values() if not job.state.final)
        return {entry.sha256 for job in running for entry in job.submission.manifest.entries}

    def generation(self, job_id: str) -> int | None:
        """The number of a job's running generation; None when none runs."""
        conductor = self._conductors.get(job_id)
        return conductor.number if conductor else None

    def submit(
        self, submission: Submission, submitter: str = "", *, resumed: bool = False
    ) -> JobRecord:
        """Queues a job; one that was submitted with the same key before is just returned.

        Args:
            submission: what to run.
            submitter: who wants it.
            resumed: it goes on with the job of its name, even without a checkpoint.

        Raises:
            UserError: a job of that name is queued or runs, or its folder can't be written.
        """
        job_id = submission.job_id
        known = self._jobs.get(job_id)
        if known is not None and submission.key and known.submission.key == submission.key:
            return known
        self._refuse_clash(submission, resumed=resumed)
        if known is not None:
            self._jobs.pop(job_id).remove()
        record = JobRecord(submission, self._keeping, submitter=submitter)
        record.begin()
        self._jobs[job_id] = record
        for ended in [job for job in self.jobs() if job.state.final][:-REMEMBERED]:
            self._jobs.pop(ended.id).remove()
        log.info("job %s is queued (%s)", job_id, submitter or "?")
        self._lead(record)
        return record

    def resume(self, job_id: str, submitter: str) -> JobRecord:
        """Queues a job again that was stopped or has failed; it goes on from its newest checkpoint.

        Raises:
            FleetError: it is not known.
            UserError: it has not ended, or is done.
            LlamaForgeError: its checkpoint can't be used.
        """
        record = self.job(job_id)
        if record.state not in (JobState.STOPPED, JobState.FAILED):
            raise UserError(
                f"job {job_id!r} is {record.state.value}",
                hint="only a job that was stopped or has failed can be resumed",
            )
        start = newest(record.submission, record.checkpoint_dir, self._store)
        if gone := self._store.missing(start.manifest):
            raise UserError(
                f"{gone[0].path} of job {job_id!r} is not in the coordinator's cache any more",
                hint="submit it anew: llamaforge train … --auto-resume",
            )
        submission = Submission(
            job=record.submission.job,
            script=record.submission.script,
            manifest=start.manifest,
            wishes=record.submission.wishes,
            output_dir=record.submission.output_dir,
            checkpoint_dir=record.submission.checkpoint_dir,
            resume_step=start.step if start.resumed else None,
        )
        return self.submit(submission, submitter, resumed=True)

    def _refuse_clash(self, submission: Submission, *, resumed: bool) -> None:
        job_id = submission.job_id
        if not _JOB_ID.fullmatch(job_id):
            raise UserError(f"{job_id!r} can't be the name of a job", hint="use --name")
        for folder in (submission.output_dir, submission.checkpoint_dir):
            if folder and not Path(folder).is_absolute():
                raise UserError(f"{folder!r} is not an absolute path")
        known = self._jobs.get(job_id)
        if known is not None and not known.state.final:
            raise UserError(
                f"job {job_id!r} is {known.state.value} already", hint="choose another --name"
            )
        if known is not None and not submission.output_dir and not resumed:
            raise UserError(
                f"there is a job {job_id!r} already: it is {known.state.value}",
                hint="choose another --name, or go on with it: llamaforge resume",
            )
        for other in self.jobs():
            if not other.state.final:
                _refuse_same_folder(submission, other)

    def stop(self, job_id: str, reason: str, *, now: bool, by: str = "") -> None:
        """Stops a job: after a checkpoint; at once with `now` or when asked again.

        Raises:
            FleetError: the job is not known or has ended.
        """
        record = self.job(job_id)
        if record.state.final:
            raise FleetError(f"job {job_id!r} has ended already: it is {record.state.value}")
        record.wants_stop(reason, by)
        conductor = self._conductors.get(job_id)
        if conductor is not None:
            conductor.stop(reason, now=now)
        self._alarm.ring()

    # ── nodes ─────────────────────────────────────────────────────────────────────────────────

    def node(self, name: str) -> Node:
        """A node. Raises FleetError when it is not known."""
        node = self.nodes.get(name)
        if node is None:
            names = ", ".join(node.name for node in self.nodes.all()) or "none has joined"
            raise FleetError(
                f"no node {name!r} is known to this coordinator", hint=f"nodes: {names}"
            )
        return node

    def wish(self, name: str, wish: NodeWish, by: str) -> None:
        """Drains a node, cordons it, or allows it again.

        Raises:
            FleetError: the node is not known.
        """
        node = self.node(name)
        if wish.wish == "allow":
            self.nodes.allow(node, by=by)
            return
        draining = wish.wish == "drain"
        told = "drained" if draining else "cordoned"
        said = f"{told} by {by}" + (f": {wish.reason}" if wish.reason else "")
        self.nodes.keep_off(node, said, by=by, draining=draining)
        conductor = self._conductors.get(node.job)
        if draining and wish.now and conductor is not None:
            conductor.drain(node, said)

    def removed(self, name: str, reason: str) -> None:
        """A node is not the fleet's any more."""
        node = self.nodes.get(name)
        if node is None:
            return
        self.nodes.forget(node, reason)
        for other in self.nodes.all():
            led = self._conductors.get(other.job)
            members = led.record.nodes if led else ()
            left = tuple(member for member in members if member != name)
            other.session.send(Roster(nodes=left))

    # ── leading ───────────────────────────────────────────────────────────────────────────────

    def recover(self) -> None:
        """Takes up what an earlier process of the coordinator left; before anybody is served."""
        self.nodes.recover()
        for row in self.ledger.read(_ROW):
            record = JobRecord.recovered(row, self._keeping)
            self._jobs[record.id] = record
            if not record.state.final:
                log.info("job %s is taken up again: %s", record.id, record.state.value)
                self._conductors[record.id] = self._conductor(record)
        kept = {
            job.id: {m.node for m in job.memory.running.members}
            for job in self.jobs()
            if not job.state.final and job.memory is not None and job.memory.running is not None
        }
        for node in self.nodes.all():
            if node.job and node.name not in kept.get(node.job, ()) and not node.ranks:
                self.nodes.give(node, "")  # it had been given, and nothing was ordered yet

    async def run(self) -> None:
        """Gives nodes to jobs, for ever."""
        self._running = True
        for conductor in list(self._conductors.values()):
            self._begin(conductor)
        try:
            while True:
                began = time.monotonic()
                wakes = self._round()
                took = time.monotonic() - began
                await asyncio.sleep(max(ROUND_SECONDS, took / ROUND_SHARE))
                await self._alarm.wait(wakes)
        finally:
            self._running = False
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            for record in self.jobs():
                record.close()

    def _round(self) -> float | None:
        """One look at all who ask for nodes. Returns when to look again at the latest."""
        now = time.monotonic()
        asking = []
        wakes: float | None = None
        for conductor in self._conductors.values():
            if (asked := conductor.waiting(now)) is not None:
                asking.append(asked[0])
                wakes = min((m for m in (wakes, asked[1]) if m is not None), default=None)
        if not asking:
            return None
        decision = schedule(asking, [node.candidate() for node in self.nodes.all()])
        most = {asked.id: asked.wishes.max_nodes or len(self.nodes.all()) for asked in asking}
        for start in decision.starts:
            until = self._gathers(start.job_id, now)
            if len(start.nodes) < most[start.job_id] and now < until:
                wakes = min(until, wakes or until)
            else:
                self._gathering.pop(start.job_id, None)
                self._conductors[start.job_id].seat(start.nodes)
        for job_id, reason in decision.waits.items():
            self._conductors[job_id].still_waits(reason)
        return wakes

    def _gathers(self, job_id: str, now: float) -> float:
        """Until when a job that could start waits for more nodes; they become free one by one."""
        finishing = any(c.record.state is JobState.FINISHING for c in self._conductors.values())
        return self._gathering.setdefault(job_id, now + GATHER_SECONDS) if finishing else now

    def _lead(self, record: JobRecord) -> None:
        conductor = self._conductors[record.id] = self._conductor(record)
        if self._running:
            self._begin(conductor)
        self._alarm.ring()

    def _conductor(self, record: JobRecord) -> Conductor:
        return Conductor(
            record,
            self.nodes,
            self._store,
            ask=self._alarm.ring,
            stop_seconds=self._stop_seconds,
            return_grace=self._return_grace,
        )

    def _begin(self, conductor: Conductor) -> None:
        job_id = conductor.record.id
        self._tasks[job_id] = asyncio.ensure_future(self._shielded(conductor))

    async def _shielded(self, conductor: Conductor) -> None:
        """One job, whose trouble, even a bug's, must not end the coordinator and the fleet."""
        record = conductor.record
        try:
            outcome = await conductor.run()
            if conductor.began and isinstance(record.work, Job):
                await record.draw()
        except Exception as bug:
            log.exception("job %s met a mistake of the coordinator", record.id)
            reason = f"the coordinator made a mistake: {type(bug).__name__}: {bug}"
            conductor.abandon(reason)
            hint = "the coordinator's log has the details; please report them"
            outcome = Outcome(state=JobState.FAILED, reason=reason, hint=hint)
        record.end(outcome)
        for node in self.nodes.all():
            if node.job == record.id and not node.ranks:
                self.nodes.give(node, "")
        self._conductors.pop(record.id, None)
        self._tasks.pop(record.id, None)
        self._alarm.ring()

    # ── what workers say ──────────────────────────────────────────────────────────────────────

    def _heard(self, node: Node, message: FromWorker) -> None:
        """Passes a worker's message to the job that it is about."""
        if isinstance(message, Leaving):
            for conductor in self._of(node):
                conductor.leaving(node, message)
        elif isinstance(message, OfJob):
            led = self._conductors.get(message.job_id)
            if led is None:
                return
            members = led.record.members
            if hearsay.concerns(node, message, members, message.job_id):
                led.heard(node, message)
            else:
                log.debug("node %s spoke of job %s, which is not its own", node.name, led.record.id)

    def _node_lost(self, node: Node) -> None:
        for conductor in self._of(node):
            conductor.lost(node)

    def _of(self, node: Node) -> list[Conductor]:
        conductor = self._conductors.get(node.job)
        return [conductor] if conductor is not None else []

    def _spares(self, node: Node) -> bool:
        return any(conductor.spares(node) for conductor in self._of(node))

    def _changed(self) -> None:
        self._alarm.ring()
        for conductor in self._conductors.values():
            if conductor.generation is not None:
                conductor.alarm.ring()


def _refuse_same_folder(submission: Submission, other: JobRecord) -> None:
    for option in ("output_dir", "checkpoint_dir"):
        folder = getattr(submission, option)
        taken = str(other.path if option == "output_dir" else other.checkpoint_dir)
        if folder and os.path.realpath(taken) == os.path.realpath(folder):
            raise UserError(
                f"job {other.id!r} writes to {folder} already",
                hint=f"choose another folder with --{option.replace('_', '-')}",
            )
