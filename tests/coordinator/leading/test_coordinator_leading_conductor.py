"""A job's way through its generations, with workers that only exist as messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobs import make_job
from llamaforge.bundle.manifest import Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.coordinator.board import Board
from llamaforge.coordinator.ledger import Ledger
from llamaforge.coordinator.node import Node
from llamaforge.monitor import events
from llamaforge.spec.ranks import Finished, Metric
from llamaforge.spec.states import JobState
from llamaforge.wire.api import Submission
from llamaforge.wire.messages import (
    FromCoordinator,
    FromWorker,
    Hello,
    Idle,
    Leaving,
    Left,
    Preflight,
    PreflightReport,
    RankExited,
    RankSaid,
    StartRanks,
    StopRanks,
    Uploaded,
)

JOB = "test-job"
PATIENCE = 20.0


class Worker:
    """One rank's worker, played by the test."""

    def __init__(self, board: Board, name: str, *, torch: str = "2.5.1") -> None:
        self.board, self.name = board, name
        versions = {"torch": torch, "python": "3.11.2", "llamaforge": "0.1.0"}
        hello = Hello(
            node=name, identity=name, session=name, cores=1, memory=1, ranks=1, versions=versions
        )
        node, _ = board.nodes.greet(hello)
        assert node is not None
        self.node: Node = node
        self.told: list[FromCoordinator] = []
        self.finds: dict[str, Any] = {}
        """What it answers to a preflight."""
        node.session.send = self._hear  # type: ignore[method-assign]
        board.nodes.connect(node, object())

    def _hear(self, message: FromCoordinator) -> None:
        self.told.append(message)
        if isinstance(message, Preflight):
            report = PreflightReport(
                job_id=message.job_id, generation=message.generation, **self.finds
            )
            asyncio.get_running_loop().call_soon(self.say, report)

    async def order(self, number: int) -> StartRanks:
        """The order to start a generation's ranks, once it has come."""
        return await soon(
            lambda: next((m for m in self.told if _starts(m, number)), None),
            f"{self.name} is told to start generation {number}",
        )

    async def stop(self) -> StopRanks:
        return await soon(
            lambda: next((m for m in self.told if isinstance(m, StopRanks)), None),
            f"{self.name} is told to stop",
        )

    def say(self, message: FromWorker) -> None:
        self.board.nodes.take(self.node, message)

    def report(self, order: StartRanks, report: Any) -> None:
        rank, number = order.first_rank, order.generation
        self.say(RankSaid(job_id=JOB, generation=number, rank=rank, report=report))

    def exit(self, order: StartRanks, **end: Any) -> None:
        number, rank = order.generation, order.first_rank
        self.say(RankExited(job_id=JOB, generation=number, rank=rank, **{"code": 0, **end}))

    def leave(self) -> None:
        self.say(Leaving(reason="told to end"))


def _starts(message: FromCoordinator, number: int) -> bool:
    return isinstance(message, StartRanks) and message.generation == number


async def soon(look: Any, what: str) -> Any:
    """What `look` finds, as soon as the coordinator's task has come that far."""

    async def again() -> Any:
        while not (found := look()):
            await asyncio.sleep(0.001)
        return found

    try:
        return await asyncio.wait_for(again(), PATIENCE)
    except asyncio.TimeoutError:
        raise AssertionError(f"not so: {what}") from None


class Site:
    """A coordinator without sockets."""

    def __init__(self, root: Path, return_grace: float) -> None:
        self.root = root
        self.board = Board(
            root,
            "fleet",
            "process",
            Ledger.open(root / "ledger.db"),
            BlobStore(root / "blobs"),
            node_grace=60,
            stop_seconds=60,
            return_grace=return_grace,
        )

    def submit(self) -> None:
        folder = self.root / "job"
        self.record = self.board.submit(
            Submission(
                job=make_job(),
                manifest=Manifest(),
                output_dir=str(folder),
                checkpoint_dir=str(folder / "checkpoints"),
            )
        )

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = events.read(self.root / "job" / "events.jsonl")
        return [line for line in lines if line["kind"] == kind]

    async def reason(self, start: str) -> None:
        what = f"the job {start}"
        try:
            await soon(lambda: self.record.reason.startswith(start), what)
        except AssertionError as late:
            raise AssertionError(f"{late}, but {self.record.reason!r}") from None

    async def ended(self) -> None:
        await soon(lambda: self.record.state.final, "the job has ended")


@pytest.fixture(params=[60.0])
async def site(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    site = Site(tmp_path, request.param)
    jobs = asyncio.ensure_future(site.board.run())
    yield site
    jobs.cancel()
    await asyncio.gather(jobs, return_exceptions=True)
    site.board.ledger.close()


async def leave_in_the_middle(site: Site, one: Worker, two: Worker) -> None:
    """Both train; the second one's worker is told to end, and ends."""
    site.submit()
    first, second = await one.order(1), await two.order(1)
    one.report(first, Metric(line={"step": 1, "loss": 1.0}))
    two.leave()
    assert (await one.stop()).how == "checkpoint"
    one.report(first, Finished(artifacts="/x", proof={"generations": []}, stopped=True))
    one.exit(first)
    two.exit(second)
    one.say(Uploaded(job_id=JOB, generation=1, what="artifacts"))
    one.say(Idle())
    two.say(Left())


async def finish(site: Site, worker: Worker, order: StartRanks) -> None:
    generations = [{"generation": order.generation, "guarantee": "same numbers"}]
    proof = {"generations": generations}
    worker.report(order, Finished(artifacts="/x", proof=proof))
    worker.exit(order)
    worker.say(Uploaded(job_id=JOB, generation=order.generation, what="artifacts"))
    worker.say(Idle())
    await site.ended()


async def test_the_job_waits_for_who_left_and_goes_on_with_them(site: Site) -> None:
    one, two = Worker(site.board, "one"), Worker(site.board, "two")
    await leave_in_the_middle(site, one, two)
    await site.reason("waits for two to come back (two is lost: its worker was ended); goes on at")
    assert site.record.state is JobState.QUEUED
    two = Worker(site.board, "two")  # a new process of the same node
    first = await one.order(2)
    assert (await two.order(2)).world_size == 2
    (told,) = site.events("continues")
    assert (told["generation"], told["step"], told["after"]) == (1, 1, 0)
    assert told["why"] == "two left (told to end)"
    two.exit(await two.order(2), code=None, signal=9)
    assert (await one.stop()).how == "checkpoint"  # of the first generation
    one.exit(first, ordered=True, code=1)
    one.say(Idle())
    two.say(Idle())
    await finish_together(site, one, two)


async def finish_together(site: Site, one: Worker, two: Worker) -> None:
    first, second = await one.order(3), await two.order(3)
    two.exit(second)
    two.say(Idle())
    await finish(site, one, first)
    proof = msgspec.json.decode((site.root / "job" / "proof.json").read_bytes())
    kept = [(past["generation"], past.get("kept", True)) for past in proof["generations"]]
    assert kept == [(1, False), (2, False), (3, True)]


@pytest.mark.parametrize("site", [0.0], indirect=True)
async def test_the_job_goes_on_without_who_stays_away(site: Site) -> None:
    one, two = Worker(site.board, "one"), Worker(site.board, "two")
    await leave_in_the_middle(site, one, two)
    order = await one.order(2)
    assert order.world_size == 1
    await finish(site, one, order)
    assert site.record.state is JobState.DONE


async def test_a_newcomer_takes_the_place_of_who_left(site: Site) -> None:
    """As many nodes as before are there, so there is nobody to wait for."""
    one, two = Worker(site.board, "one"), Worker(site.board, "two")
    site.submit()
    await two.order(1)
    Worker(site.board, "three")
    await continue_without(site, one, two)
    assert (await one.order(2)).world_size == 2


async def continue_without(site: Site, one: Worker, two: Worker) -> None:
    first = await one.order(1)
    two.leave()
    await one.stop()
    one.exit(first, code=None, signal=15, ordered=True)
    one.say(Idle())
    two.say(Left())


async def test_nodes_that_differ_are_named_and_so_is_one_that_came_back_with_another_torch(
    site: Site,
) -> None:
    one, two = Worker(site.board, "one"), Worker(site.board, "two", torch="2.4.0")
    await leave_in_the_middle(site, one, two)
    two = Worker(site.board, "two")
    await two.order(2)
    first, second = site.events("versions")
    assert first["text"].startswith("one has torch 2.5.1, two has 2.4.0: a canary slice tells")
    assert first["nodes"]["two"]["torch"] == "2.4.0"
    assert second["text"].startswith("two had torch 2.4.0 before, it has 2.5.1 now: ")


async def test_words_of_a_generation_that_is_over_are_not_heard(site: Site) -> None:
    one, two = Worker(site.board, "one"), Worker(site.board, "two")
    await leave_in_the_middle(site, one, two)
    two = Worker(site.board, "two")
    await two.order(2)
    late = RankSaid(job_id=JOB, generation=1, rank=0, report=Metric(line={"step": 9, "loss": 1.0}))
    one.say(late)
    one.say(Uploaded(job_id=JOB, generation=1, what="artifacts"))
    assert site.record.step == 0
    assert site.board.generation(JOB) == 2


async def test_a_stop_while_nobody_is_there(site: Site) -> None:
    one, two = Worker(site.board, "one"), Worker(site.board, "two")
    await leave_in_the_middle(site, one, two)
    one.leave()
    one.say(Left())
    await site.reason("waits for one and two to come back")
    site.board.stop(JOB, "enough", now=False)
    await site.ended()
    assert site.record.reason == "enough; none is saved"
