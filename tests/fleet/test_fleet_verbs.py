"""The verbs of jobs and nodes against a real coordinator, which is killed while they listen."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from fleet_rig import Rig
from llamaforge.errors import UserError
from llamaforge.spec.states import JobState, NodeState
from llamaforge.wire import fleet_file
from llamaforge.wire.client import FleetClient
from llamaforge.wire.updates import LogLine, MetricLine, Numbered

PATIENCE = 60


def command(rig: Rig, *args: str) -> list[str]:
    return [sys.executable, "-m", "llamaforge", *args, "--fleet", str(rig.fleet_file)]


def typed(rig: Rig, *args: str, code: int = 0) -> str:
    done = subprocess.run(
        command(rig, *args), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def restart(rig: Rig) -> None:
    """SIGKILL, and started again on the same port."""
    port = fleet_file.read(rig.fleet_file).port
    rig.end("coordinator", signal.SIGKILL)
    rig.coordinator(port=port)
    rig.wait(lambda: fleet_file.find(rig.fleet_file) is not None, "it listens again")


async def until_step(client: FleetClient, job: str, step: int) -> None:
    stream: AsyncIterator[Numbered]
    async with aclosing(client.stream(job)) as stream:
        async for numbered in stream:
            if isinstance(numbered.update, MetricLine) and numbered.update.line["step"] >= step:
                return


async def test_logs_and_attach_through_a_killed_coordinator(rig: Rig) -> None:
    """Nothing of either is missing or there twice, and the job itself does not notice."""
    await rig.waiting("worker-1", "worker-2")
    async with rig.client() as client:
        await rig.submit(client, "noisy", "steps=60 pace=0.1 chatter")
        await until_step(client, "noisy", 5)
        verbs = (["logs", "noisy", "-f", "--json"], ["attach", "noisy", "--json"])
        logs, attach = (
            subprocess.Popen(command(rig, *verb), stdout=subprocess.PIPE, text=True)
            for verb in verbs
        )
        await until_step(client, "noisy", 15)
        ranks = rig.ranks()
        restart(rig)
        await until_step(client, "noisy", 30)
        assert rig.ranks() == ranks
        restart(rig)
        lines, updates = (
            objects(process.communicate(timeout=PATIENCE)[0]) for process in (logs, attach)
        )
        history = [numbered async for numbered in client.history("noisy")]
    assert (logs.returncode, attach.returncode) == (0, 0)
    told = [n for n in history if isinstance(n.update, LogLine)]
    assert [(said["number"], said["text"]) for said in lines] == [
        (numbered.number, numbered.update.text)  # type: ignore[union-attr]
        for numbered in told
    ]
    for rank in range(4):
        assert [
            s["text"].split()[-1] for s in lines if s["rank"] == rank and "did" in s["text"]
        ] == [str(step) for step in range(1, 61)]
    steps = [u["line"]["step"] for u in updates if u["type"] == "metric"]
    assert steps == list(range(steps[0], 61))
    assert updates[-1]["type"] == "summary"
    assert [n.number for n in history] == list(range(len(history)))


async def test_the_life_of_a_job_by_hand(rig: Rig) -> None:
    await rig.waiting("worker-1", "worker-2")
    async with rig.client() as client:
        await rig.submit(client, "mine-1", "hang pace=0.05 chatter", save_steps=2)
        await until_step(client, "mine-1", 3)
        assert objects(typed(rig, "jobs", "--json"))[0]["state"] == "running"
        assert "worker-2" in typed(rig, "status", "mine")
        assert "can't be" not in typed(rig, "cancel", "1", "--dry-run")
        assert (await client.job("mine-1")).state is JobState.RUNNING
        assert "no rank 9" in typed(rig, "logs", "mine-1", "--rank", "9", code=2)
        typed(rig, "cancel", "mine-1", "--reason", "enough")
        async for _ in client.follow("mine-1"):
            pass
        assert (await client.job("mine-1")).state is JobState.STOPPED
        assert "has ended already" in typed(rig, "cancel", "mine-1", code=2)
        restart(rig)
        assert typed(rig, "jobs") == (
            "no job waits or runs; those that have ended: llamaforge jobs --all\n"
        )
        assert "queued again" in typed(rig, "resume", "mine-1")
        assert "has not ended" in typed(rig, "resume", "mine-1", code=2)
        await until_step(client, "mine-1", 4)
        assert "did step" in typed(rig, "logs", "mine-1", "-n", "1")
        typed(rig, "cancel", "mine-1", "--now")
        async for _ in client.follow("mine-1"):
            pass
    events = objects(typed(rig, "events", "--job", "mine-1", "--all", "--json"))
    what = [event["what"] for event in events]
    for earlier, later in (("queued", "running"), ("running", "stopped"), ("stop", "stopped")):
        assert what.index(earlier) < what.index(later)
    assert what.count("stopped") == 2
    assert any(event["reason"] == "enough" for event in events)
    every = objects(typed(rig, "events", "--all", "--json"))
    assert [event["number"] for event in every] == list(range(1, len(every) + 1))


async def test_a_drained_node_gets_nothing_until_it_is_allowed(rig: Rig) -> None:
    await rig.waiting("worker-1", "worker-2")
    assert "it runs none" in typed(rig, "drain", "worker-2", "--reason", "new disk")
    (node,) = [n for n in (await rig.status()).nodes if n.name == "worker-2"]
    assert node.state is NodeState.CORDONED
    assert "new disk" in typed(rig, "nodes")
    _, updates = await rig.run("small", "steps=2")
    started = next(u for u in updates if type(u).__name__ == "GenerationStarted")
    assert [member.node for member in started.nodes] == ["worker-1"]  # type: ignore[union-attr]
    restart(rig)
    await rig.waiting("worker-1")
    typed(rig, "drain", "worker-2", "--off")
    await rig.waiting("worker-1", "worker-2")
    assert "no node 'worker-3'" in typed(rig, "drain", "worker-3", code=2)
    assert "Traceback" not in rig.log("coordinator")


async def test_a_job_in_the_coordinators_own_folder(rig: Rig) -> None:
    """It is fetched, resumed though it has no checkpoint, and not mixed with one of its name."""
    await rig.waiting("worker-1", "worker-2")
    job, manifest, store = rig.job("own", "fail=0 at=1 only=1 steps=2", on_node_loss="fail")
    async with rig.client() as client:
        folders = {"output_dir": None, "checkpoint_dir": None}
        await client.submit(job, manifest, store, **folders)  # type: ignore[arg-type]
        async for _ in client.follow("own"):
            pass
        status = await client.job("own")
        assert (status.state, status.own_folder) == (JobState.FAILED, True)
        with pytest.raises(UserError, match="there is a job 'own' already"):
            await client.submit(job, manifest, store, **folders)  # type: ignore[arg-type]
        assert "loss is NaN" in typed(rig, "attach", "own", code=1)
        typed(rig, "resume", "own")
        updates = [update async for update in client.follow("own")]
        assert (await client.job("own")).state is JobState.DONE, updates[-1]
    copy = rig.root / "copy"
    assert "file" in typed(rig, "fetch", "own", str(copy))
    assert {"job.yaml", "metrics.jsonl", "proof.json"} <= {path.name for path in copy.iterdir()}
