"""A generation on one node, with ranks and transfers that exist only in the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import make_job
from llamaforge.bundle.manifest import Entry, Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import FleetError
from llamaforge.spec import ranks
from llamaforge.spec.ranks import (
    Assignment,
    CheckpointDone,
    Finished,
    FromRank,
    StoreReady,
    ToRank,
)
from llamaforge.wire.messages import (
    CannotStart,
    FromWorker,
    RankExited,
    RankLog,
    RankSaid,
    Rendezvous,
    StartRanks,
    Uploaded,
)
from llamaforge.worker import node_job
from llamaforge.worker.node_job import NodeJob
from llamaforge.worker.rank_runner import Exit


class FakeRank:
    def __init__(
        self,
        assignment: Assignment,
        on_report: Callable[[FromRank], None],
        on_line: Callable[[str], None],
    ) -> None:
        self.assignment, self.report, self.line = assignment, on_report, on_line
        self.heard: list[ToRank] = []
        self.signals: list[str] = []
        self.end: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    def say(self, message: ToRank) -> None:
        self.heard.append(message)

    def terminate(self) -> None:
        self.signals.append("TERM")

    def kill(self) -> None:
        self.signals.append("KILL")
        if not self.end.done():
            self.end.set_result(Exit(signal=9, ordered=True))

    async def wait(self) -> Exit:
        return await self.end


class FakeRunner:
    canary = ("none",)

    def __init__(self) -> None:
        self.ranks: list[FakeRank] = []
        self.started = asyncio.Event()

    async def start(
        self,
        assignment: Assignment,
        folder: Path,
        *,
        on_report: Callable[[FromRank], None],
        on_line: Callable[[str], None],
    ) -> FakeRank:
        self.ranks.append(FakeRank(assignment, on_report, on_line))
        if len(self.ranks) == 2:
            self.started.set()
        return self.ranks[-1]


class FakeHttp:
    """Transfers that take until they are told to end."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.blobs = {"data/train.jsonl": b"rows", "resume/state.json": b"a checkpoint"}
        self.hold = asyncio.Event()
        self.hold.set()
        self.error: Exception | None = None

    async def __aenter__(self) -> FakeHttp:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def fetch_missing(self, manifest: Manifest, store: BlobStore) -> tuple[Entry, ...]:
        await self.hold.wait()
        if self.error:
            raise self.error
        for entry in manifest.entries:
            assert store.add_bytes(self.blobs[entry.path])[0] == entry.sha256
        return manifest.entries

    async def send_checkpoint(self, job_id: str, folder: Path) -> None:
        await self._send(f"checkpoint {folder.name}")

    async def send_artifacts(self, job_id: str, folder: Path) -> None:
        await self._send(f"artifacts {folder.name}")

    async def _send(self, what: str) -> None:
        await self.hold.wait()
        if self.error:
            raise self.error
        self.sent.append(what)


class World:
    def __init__(self, root: Path, first_rank: int = 0) -> None:
        self.said: list[FromWorker] = []
        self.runner, self.http = FakeRunner(), FakeHttp()
        source, entries = BlobStore(root / "source"), []
        for path, data in self.http.blobs.items():
            sha256, size = source.add_bytes(data)
            entries.append(Entry(path=path, sha256=sha256, size=size))
        self.store = BlobStore(root / "cache" / "blobs")
        self.jobs = root / "jobs"
        self.order = StartRanks(
            job=make_job(),
            generation=1,
            manifest=Manifest(entries=tuple(entries)),
            first_rank=first_rank,
            count=2,
            world_size=4,
        )
        self.job = NodeJob(
            self.order,
            node="a",
            address="10.0.0.1",
            jobs=self.jobs,
            cache=root / "cache",
            runner=self.runner,
            http=self.http,  # type: ignore[arg-type]
            send=self.said.append,
        )
        self.running = asyncio.ensure_future(self.job.run())

    async def started(self) -> list[FakeRank]:
        await asyncio.wait_for(self.runner.started.wait(), 5)
        return self.runner.ranks

    def of(self, kind: type) -> list[FromWorker]:
        return [message for message in self.said if isinstance(message, kind)]


async def test_ranks_get_their_places_and_files(tmp_path: Path) -> None:
    world = World(tmp_path, first_rank=2)
    first, second = await world.started()
    places = [(r.assignment.rank, r.assignment.local_rank) for r in (first, second)]
    assert places == [(2, 0), (3, 1)]
    assert first.assignment.address == "10.0.0.1"
    assert (Path(first.assignment.bundle) / "data/train.jsonl").read_bytes() == b"rows"
    world.job.rendezvous(Rendezvous(job_id="test-job", generation=1, host="h", port=7))
    assert first.heard == second.heard == [ranks.Rendezvous(host="h", port=7)]
    first.line("hello")
    for rank in (first, second):
        rank.end.set_result(Exit(code=0))
    await world.running
    assert world.of(RankLog) == [RankLog(job_id="test-job", rank=2, line="hello")]
    assert [(m.rank, m.code) for m in world.of(RankExited)] == [(2, 0), (3, 0)]  # type: ignore[attr-defined]
    assert list(world.jobs.iterdir()) == []


async def test_a_checkpoint_that_was_fetched_does_not_stay(tmp_path: Path) -> None:
    """Each generation goes on from another one; data and model are worth keeping."""
    world = World(tmp_path)
    for rank in await world.started():
        assert (Path(rank.assignment.bundle) / "resume/state.json").read_bytes() == b"a checkpoint"
        rank.end.set_result(Exit(code=0))
    await world.running
    rows, checkpoint = world.order.manifest.entries
    assert world.store.has(rows.sha256)
    assert not world.store.has(checkpoint.sha256)


async def test_rank_0_hosts_the_store_and_hears_of_no_other(tmp_path: Path) -> None:
    world = World(tmp_path)
    zero, one = await world.started()
    world.job.rendezvous(Rendezvous(job_id="test-job", generation=1, host="h", port=7))
    assert zero.heard == []
    assert one.heard == [ranks.Rendezvous(host="h", port=7)]
    world.job.kill()
    await world.running


async def test_checkpoints_are_sent_one_at_a_time_and_the_newest_matters(tmp_path: Path) -> None:
    world = World(tmp_path)
    zero, one = await world.started()
    world.http.hold.clear()
    for step in (1, 2, 3):
        zero.report(CheckpointDone(step=step, path=f"/x/step-{step}"))
        await asyncio.sleep(0)
    zero.report(Finished(artifacts="/x/artifacts", proof={}))
    for rank in (zero, one):
        rank.end.set_result(Exit(code=0))
    await asyncio.sleep(0)
    assert not world.running.done()  # it waits for the uploads
    world.http.hold.set()
    await world.running
    assert world.http.sent == ["checkpoint step-1", "checkpoint step-3", "artifacts artifacts"]
    assert [m.what for m in world.of(Uploaded)] == ["checkpoint", "checkpoint", "artifacts"]  # type: ignore[attr-defined]
    assert len(world.of(RankSaid)) == 4


async def test_only_rank_0_uploads(tmp_path: Path) -> None:
    world = World(tmp_path)
    _, one = await world.started()
    one.report(Finished(artifacts="/x/artifacts", proof={}))
    world.job.kill()
    await world.running
    assert world.http.sent == []


async def test_what_could_not_be_sent_is_kept(tmp_path: Path) -> None:
    world = World(tmp_path)
    zero, _ = await world.started()
    (Path(zero.assignment.workdir) / "artifacts").mkdir()
    world.http.error = FleetError("disk full over there")
    zero.report(Finished(artifacts="/x/artifacts", proof={}))
    world.job.kill()
    await world.running
    (told,) = world.of(Uploaded)
    assert "disk full over there" in told.error  # type: ignore[attr-defined]
    assert [f.name for f in world.jobs.iterdir()] == ["test-job.1.kept"]


@pytest.mark.parametrize(
    "error", [FleetError("no such blob"), OSError(28, "No space left on device")]
)
async def test_a_node_that_can_not_prepare_says_why(tmp_path: Path, error: Exception) -> None:
    world = World(tmp_path)
    world.http.error = error
    await world.running
    (told,) = world.of(CannotStart)
    assert error.args[-1] in told.message  # type: ignore[attr-defined]
    if isinstance(error, OSError):
        assert str(tmp_path / "cache") in told.message  # type: ignore[attr-defined]
        assert "--cache-dir" in told.hint  # type: ignore[attr-defined]
    assert world.runner.ranks == []
    assert list(world.jobs.iterdir()) == []


async def test_a_stop_while_fetching_starts_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.http.hold.clear()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    world.job.stop("checkpoint", "stopped by the user")
    await world.running
    (told,) = world.of(CannotStart)
    assert "stopped by the user" in told.message  # type: ignore[attr-defined]
    assert world.runner.ranks == []


async def test_stop_asks_and_end_terminates(tmp_path: Path) -> None:
    world = World(tmp_path)
    both = await world.started()
    world.job.stop("checkpoint", "enough")
    assert [rank.heard for rank in both] == [[ranks.Stop(reason="enough")]] * 2
    assert [rank.signals for rank in both] == [[], []]
    world.job.stop("end", "too slow")
    assert [rank.signals for rank in both] == [["TERM"], ["TERM"]]
    world.job.kill()
    await world.running
    assert [m.ordered for m in world.of(RankExited)] == [True, True]  # type: ignore[attr-defined]


async def test_a_rank_0_that_opens_no_store_is_named_and_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_job, "STORE_SECONDS", 0.01)
    world = World(tmp_path)
    zero, one = await world.started()
    while not zero.signals:
        await asyncio.sleep(0.01)
    (told,) = world.of(RankSaid)
    assert told.rank == 0  # type: ignore[attr-defined]
    assert "did not open the generation's store" in told.report.message  # type: ignore[attr-defined]
    assert one.signals == []  # the coordinator ends the others
    world.job.kill()
    await world.running


async def test_a_store_in_time_stops_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_job, "STORE_SECONDS", 0.05)
    world = World(tmp_path)
    zero, _ = await world.started()
    zero.report(StoreReady(host="h", port=7))
    await asyncio.sleep(0.1)
    assert zero.signals == []
    world.job.kill()
    await world.running


async def test_what_was_on_its_way_when_the_worker_ends_is_kept(tmp_path: Path) -> None:
    world = World(tmp_path)
    zero, one = await world.started()
    world.http.hold.clear()
    zero.report(Finished(artifacts="/x/artifacts", proof={}))
    for rank in (zero, one):
        rank.end.set_result(Exit(code=0))
    await asyncio.sleep(0.05)
    world.running.cancel()
    await asyncio.wait({world.running})
    assert [f.name for f in world.jobs.iterdir()] == ["test-job.1.kept"]
