"""A fleet with real ranks: whatever happens to its workers, a job ends with the same SHA-256."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_rig import Rig
from llamaforge.bundle.make import Prepared, make_bundle
from llamaforge.bundle.store import BlobStore
from llamaforge.spec.job import JobSpec
from llamaforge.spec.states import JobState
from llamaforge.wire.client import FleetClient
from llamaforge.wire.updates import Ended, GenerationStarted, JobUpdate, MetricLine, NoteLine
from models import make_model

pytestmark = pytest.mark.slow

WORDS = "a worker waits for a job and trains its share of every step until all is done".split()  # noqa: SIM905
STEPS = 90
DIGESTS = ("weights_sha256", "optimizer_sha256", "order_sha256", "rows_trained", "tokens", "steps")


class RealRig(Rig):
    """The rig with the workers that people run: their ranks train."""

    def worker(self, name: str, **flags: object) -> None:
        options = {
            "name": name,
            "fleet": self.fleet_file,
            "state-dir": self.folder(name),
            "cache-dir": self.folder("cache"),
            "peer-port": 0,
            "ranks": 1,
            **flags,
        }
        words = [text for key, value in options.items() for text in (f"--{key}", str(value))]
        self._start(name, [sys.executable, "-m", "llamaforge", "worker", "run", *words])

    def restart(self, name: str) -> None:
        """As `systemctl restart` does it."""
        assert self.end(name) == 0
        self.worker(name)

    def kill_rank(self, name: str) -> None:
        """As the kernel does it when memory is short."""
        worker = self.processes[name].pid
        (rank,) = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
        os.kill(int(rank), signal.SIGKILL)


class Life:
    """One job, watched from its start to its end."""

    def __init__(self, rig: RealRig, client: FleetClient, prepared: Prepared) -> None:
        self.rig, self.client, self.prepared = rig, client, prepared
        self.seen: list[JobUpdate] = []
        self._updates: AsyncIterator[JobUpdate] = client.follow(prepared.job.id)

    @classmethod
    async def begin(cls, rig: RealRig, client: FleetClient, name: str) -> Life:
        spec = JobSpec(
            model=str(rig.root / "model"),
            dataset=str(rig.root / "rows.jsonl"),
            heldout="0.1",
            batch_size=6,
            epochs=9,
            max_steps=STEPS,
            learning_rate=3e-3,
            lora_dropout=0.1,
            save_steps=5,
            save_minutes=0,
            name=name,
            output_dir=str(rig.root / "runs" / name),
        )
        store = BlobStore(rig.root / "cache" / "blobs")
        prepared = make_bundle(spec, store, cache=rig.root / "cache")
        await client.submit(
            prepared.job,
            prepared.manifest,
            store,
            output_dir=prepared.output_dir,
            checkpoint_dir=prepared.checkpoint_dir,
        )
        return cls(rig, client, prepared)

    async def steps(self, more: int) -> None:
        """Until so many steps have been committed from now on."""
        async for update in self._updates:
            self.seen.append(update)
            assert not isinstance(update, Ended), update.reason
            if isinstance(update, MetricLine) and "loss" in update.line:
                more -= 1
                if more <= 0:
                    return

    async def end(self) -> dict[str, Any]:
        """The proof, once the job is done."""
        self.seen += [update async for update in self._updates]
        ended = self.seen[-1]
        assert isinstance(ended, Ended)
        assert ended.state is JobState.DONE, ended.reason
        self._each_step_stands_once()
        proof: dict[str, Any] = json.loads((self.prepared.output_dir / "proof.json").read_text())
        assert proof == ended.proof
        return proof

    def _each_step_stands_once(self) -> None:
        text = (self.prepared.output_dir / "metrics.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        assert [line["step"] for line in lines if "loss" in line] == list(range(1, STEPS + 1))
        assert [line["step"] for line in lines if "heldout_loss" in line] == [0, STEPS]

    def generations(self) -> int:
        return len([u for u in self.seen if isinstance(u, GenerationStarted)])

    def reasons(self) -> list[str]:
        return [u.text for u in self.seen if isinstance(u, NoteLine) and u.kind == "continues"]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRig]:
    rig = RealRig(tmp_path_factory.mktemp("fleet"))
    make_model(rig.root / "model")
    chance = random.Random(0)
    rows = [
        {
            "instruction": " ".join(chance.choices(WORDS, k=chance.randint(1, 12))),
            "output": " ".join(chance.choices(WORDS, k=chance.randint(1, 9))),
        }
        for _ in range(80)
    ]
    (rig.root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        rig.coordinator(**{"return-grace": 60.0, "node-grace": 60.0})
        rig.worker("worker-1")
        yield rig
    finally:
        rig.close()


@pytest.fixture(scope="module")
def undisturbed(rig: RealRig) -> dict[str, Any]:
    """The proof of a run on one rank that nothing happened to."""

    async def run() -> dict[str, Any]:
        await rig.waiting("worker-1")
        async with rig.client() as client:
            life = await Life.begin(rig, client, "undisturbed")
            return await life.end()

    return asyncio.run(run())


async def test_the_only_worker_may_be_restarted_and_its_rank_killed(
    rig: RealRig, undisturbed: dict[str, Any]
) -> None:
    await rig.waiting("worker-1")
    async with rig.client() as client:
        life = await Life.begin(rig, client, "alone")
        await life.steps(3)
        rig.restart("worker-1")
        await life.steps(12)
        rig.kill_rank("worker-1")
        proof = await life.end()
    assert {key: proof[key] for key in DIGESTS} == {key: undisturbed[key] for key in DIGESTS}
    assert proof["guarantee"] == "same numbers"
    left, killed = life.reasons()
    assert "worker-1 left" in left
    assert "rank 0 on worker-1 was killed by SIGKILL" in killed
    first, second, third = proof["generations"]
    assert first["ended"].startswith("worker-1 left")
    assert second["first_step"] == first["last_step"] + 1  # nothing was done twice
    assert third["first_step"] <= second["last_step"]  # at most since the last checkpoint
    assert third["first_step"] > second["last_step"] - 10


async def test_one_of_two_workers_may_leave_come_back_and_be_killed(
    rig: RealRig, undisturbed: dict[str, Any]
) -> None:
    rig.worker("worker-2")
    await rig.waiting("worker-1", "worker-2")
    async with rig.client() as client:
        life = await Life.begin(rig, client, "both")
        await life.steps(3)
        rig.restart("worker-2")
        await life.steps(12)
        rig.end("worker-1", signal.SIGKILL)  # the one with rank 0
        rig.worker("worker-1")
        proof = await life.end()
    assert {key: proof[key] for key in DIGESTS} == {key: undisturbed[key] for key in DIGESTS}
    left, killed = life.reasons()
    assert "worker-2 left" in left
    assert "node worker-1 is lost: its worker was started anew" in killed
    everybody = {"worker-1": 1, "worker-2": 1}
    assert [past["ranks"] for past in proof["generations"]] == [everybody] * 3
    assert life.generations() == 3  # one for each event: the job waits for who comes back
