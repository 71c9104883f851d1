"""A coordinator that dies, at any moment: the job goes on, and nothing is lost, doubled or asked
for twice.

Everything but sockets and processes is real: ledger, files, sessions. The coordinator is dropped
after its k-th frame, without a flush, for every k of a job's life.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from jobs import make_job
from llamaforge.bundle.manifest import Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.coordinator.board import Board
from llamaforge.coordinator.ledger import Ledger
from llamaforge.coordinator.record import JobRecord
from llamaforge.spec.ranks import Finished, FromRank, Metric, Note, StoreReady
from llamaforge.spec.states import JobState
from llamaforge.wire.api import Submission
from llamaforge.wire.messages import (
    FromCoordinator,
    FromWorker,
    Hello,
    Idle,
    Preflight,
    PreflightReport,
    RankExited,
    RankLog,
    RankSaid,
    Rendezvous,
    StartRanks,
    Uploaded,
    Welcome,
)
from llamaforge.wire.session import Session
from llamaforge.wire.updates import Ended, LogLine, MetricLine, NoteLine, Numbered

JOB = "test-job"
STEPS = 5
PATIENCE = 30.0


class Crash(Exception):
    """The coordinator's process is gone."""


class Wire:
    """One direction of a connection: hands frames over, until it is cut."""

    def __init__(self, deliver: Callable[[bytes], None]) -> None:
        self._deliver = deliver
        self.cut = False

    async def send_bytes(self, data: bytes) -> None:
        await asyncio.sleep(0)
        if self.cut:
            raise ConnectionResetError
        self._deliver(data)


class Worker:
    """A worker process that outlives coordinators; its ranks are a list of reports."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.session: Session[FromWorker, FromCoordinator] = Session(FromCoordinator)
        self.fleet = self.process = ""
        self.began: list[int] = []
        """Generations whose ranks it has started."""
        self.met: list[int] = []
        self.tasks: list[asyncio.Task[None]] = []

    def hello(self) -> Hello:
        return Hello(
            node=self.name,
            identity=self.name,
            session=f"process of {self.name}",
            coordinator=self.fleet,
            process=self.process,
            received=self.session.received,
            cores=1,
            memory=1,
            ranks=1,
        )

    def heard(self, message: FromCoordinator) -> None:
        if isinstance(message, Preflight):
            of = {"job_id": message.job_id, "generation": message.generation}
            self.session.send(PreflightReport(**of))
        elif isinstance(message, StartRanks) and message.generation not in self.began:
            self.began.append(message.generation)
            self._begin(message)
        elif isinstance(message, Rendezvous) and message.generation not in self.met:
            self.met.append(message.generation)

    def _begin(self, order: StartRanks) -> None:
        rank, number = order.first_rank, order.generation

        def say(report: FromRank) -> None:
            self.session.send(RankSaid(job_id=JOB, generation=number, rank=rank, report=report))

        if rank == 0:
            say(StoreReady(host="h", port=1))
            say(Note(kind="guarantee", text="same numbers"))
            for step in range(1, STEPS + 1):
                say(Metric(line={"step": step, "loss": 1.0}))
                self.session.send(RankLog(job_id=JOB, rank=0, line=f"line {step}"))
            say(Finished(artifacts="/x", proof={"generations": [{"generation": number}]}))
        self.session.send(RankExited(job_id=JOB, generation=number, rank=rank, code=0))
        if rank == 0:
            self.session.send(Uploaded(job_id=JOB, generation=number, what="artifacts"))
        self.session.send(Idle())


class Life:
    """One process of the coordinator; after `frames` frames it is gone."""

    def __init__(self, root: Path, number: int, frames: int | None) -> None:
        self.ledger = Ledger.open(root / "ledger.db")
        self.board = Board(
            root,
            "fleet",
            f"process {number}",
            self.ledger,
            BlobStore(root / "blobs"),
            node_grace=60,
            stop_seconds=60,
            return_grace=60,
        )
        self.board.recover()
        self._left = frames
        self.gone = asyncio.Event()
        self._work = asyncio.ensure_future(self.board.run())
        self._links: list[tuple[Wire, Wire, asyncio.Task[None], asyncio.Task[None]]] = []

    async def connect(self, worker: Worker) -> None:
        hello = worker.hello()
        node, welcome = self.board.nodes.greet(hello)
        await self.board.durable()
        assert node is not None
        assert isinstance(welcome, Welcome)
        if welcome.resumed and welcome.process != worker.process:
            worker.session.restart()
        worker.fleet, worker.process = welcome.coordinator, welcome.process
        goes_on = welcome.resumed and hello.process == welcome.process

        def arrives(data: bytes) -> None:
            self._count()
            message = node.session.take(data)
            if message is not None:
                self.board.nodes.take(node, message)

        def answers(data: bytes) -> None:
            message = worker.session.take(data)
            if message is not None:
                worker.heard(message)

        up, down = Wire(arrives), Wire(answers)
        self.board.nodes.connect(node, up)
        self._links.append(
            (
                up,
                down,
                asyncio.ensure_future(worker.session.write(up, welcome.received)),
                asyncio.ensure_future(node.session.write(down, hello.received if goes_on else 0)),
            )
        )

    def _count(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                self.gone.set()
                raise ConnectionResetError

    async def die(self) -> None:
        """As by SIGKILL: what is not durable is gone."""
        for up, down, *tasks in self._links:
            up.cut = down.cut = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self._work.cancel()
        await asyncio.gather(self._work, return_exceptions=True)
        self.ledger.close(flush=False)

    async def ended(self) -> None:
        async def look() -> None:
            while not self.board.job(JOB).state.final:
                await asyncio.sleep(0.005)
            await self.board.durable()

        await asyncio.wait_for(look(), PATIENCE)


class Follower:
    """A client that comes back to each coordinator with its position."""

    def __init__(self) -> None:
        self.seen: list[Numbered] = []

    async def follow(self, life: Life) -> None:
        async for line in life.board.job(JOB).stream.read(len(self.seen), 30):
            if line.strip():
                self.seen.append(msgspec.json.decode(line, type=Numbered))


def submission(root: Path) -> Submission:
    folder = root / "job"
    return Submission(
        job=make_job(),
        manifest=Manifest(),
        key="once",
        output_dir=str(folder),
        checkpoint_dir=str(folder / "checkpoints"),
    )


async def run(root: Path, frames: int | None) -> tuple[bool, Life, list[Worker], Follower]:
    """A job of two nodes whose coordinator is gone after so many frames and then comes back."""
    workers = [Worker("one"), Worker("two")]
    follower = Follower()
    life = Life(root, 1, frames)
    for worker in workers:
        await life.connect(worker)
    life.board.submit(submission(root), "local:test")
    await life.board.durable()
    following = asyncio.ensure_future(follower.follow(life))
    ending = asyncio.ensure_future(life.ended())
    dying = asyncio.ensure_future(life.gone.wait())
    await asyncio.wait({ending, dying}, return_when=asyncio.FIRST_COMPLETED)
    died = dying.done()
    for task in (ending, dying):
        task.cancel()
    if died:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await life.die()
        life = Life(root, 2, None)
        again = life.board.submit(submission(root), "local:test")  # its answer may have been lost
        assert again.number == 1
        for worker in reversed(workers):
            await life.connect(worker)
        following = asyncio.ensure_future(follower.follow(life))
        await life.ended()
    await asyncio.wait_for(following, PATIENCE)
    return died, life, workers, follower


async def check(root: Path, frames: int | None) -> bool:
    died, life, workers, follower = await run(root, frames)
    record = life.board.job(JOB)
    assert record.state is JobState.DONE, record.reason
    assert [worker.began for worker in workers] == [[1], [1]], "the ranks were started once"
    metrics = [json.loads(line) for line in (root / "job" / "metrics.jsonl").open()]
    assert [line["step"] for line in metrics] == list(range(1, STEPS + 1))
    assert [seen.number for seen in follower.seen] == list(range(len(follower.seen)))
    updates = [seen.update for seen in follower.seen]
    steps = [u.line["step"] for u in updates if isinstance(u, MetricLine)]
    assert steps == list(range(1, STEPS + 1))
    said = [u.text for u in updates if isinstance(u, LogLine)]
    assert said == [f"line {step}" for step in range(1, STEPS + 1)]
    assert isinstance(updates[-1], Ended)
    notes = [u.kind for u in updates if isinstance(u, NoteLine)]
    events = [json.loads(line)["kind"] for line in (root / "job" / "events.jsonl").open()]
    assert notes.count("guarantee") == events.count("guarantee") == 1
    assert events.count("generation") == events.count("ended") == 1
    numbers = [event.number for event in life.ledger.events(limit=10_000)]
    assert numbers == list(range(1, len(numbers) + 1))
    await life.die()
    return died


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would take a second, and says nothing here."""

    async def draw(_: JobRecord) -> None:
        return

    monkeypatch.setattr(JobRecord, "draw", draw)


async def test_without_a_crash(tmp_path: Path) -> None:
    assert not await check(tmp_path, None)


@pytest.mark.timeout(240)
async def test_a_crash_after_any_frame(tmp_path: Path) -> None:
    frames = 0
    while await check(tmp_path / str(frames), frames):
        frames += 1
    assert frames > 15, "the whole life of the job was tried"


async def test_two_crashes_in_a_row_and_a_job_that_waits(tmp_path: Path) -> None:
    """Queued jobs keep their order and their reason; a removed ledger row is not invented."""
    life = Life(tmp_path, 1, None)
    life.board.submit(submission(tmp_path), "person:anna")
    await life.board.durable()
    for number in (2, 3):
        await life.die()
        life = Life(tmp_path, number, None)
    record = life.board.job(JOB)
    assert (record.state, record.submitter, record.number) == (JobState.QUEUED, "person:anna", 1)
    worker = Worker("one")
    await life.connect(worker)
    await life.ended()
    assert worker.began == [1]
    await life.die()
    life = Life(tmp_path, 4, None)
    assert life.board.job(JOB).state is JobState.DONE
    assert life.board.job(JOB).ended is not None
    await life.die()
