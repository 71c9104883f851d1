"""A coordinator and two worker services on three machines: whatever ends in the middle of a job,
the result has the same SHA-256 as an undisturbed run."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from lab import Lab, Node
from service import UNIT, until_waiting

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

JOBS = "/srv/jobs"
STATE = "/root/.local/state/llamaforge"
STEPS = 60
TRAIN = (
    "--model tiny --dataset rows.jsonl --batch-size 6 --epochs 9 --learning-rate 1e-3 "
    f"--max-steps {STEPS} --save-steps 5 --lora-dropout 0.1"
)
DIGESTS = ("weights_sha256", "optimizer_sha256", "order_sha256", "rows_trained", "steps")


class Fleet:
    """The three machines, and jobs that are started on the first."""

    def __init__(self, lab: Lab) -> None:
        self.head, self.one, self.two = (
            lab.add(name, image="installed") for name in ("head", "node1", "node2")
        )
        lab.boot()
        self.head.write(f"{JOBS}/rows.jsonl", rows())
        self.start_coordinator()
        for worker in (self.one, self.two):
            self._install(worker)
        self.until_both_wait()

    def start_coordinator(self) -> None:
        """It has no unit of its own yet: its administrator starts it."""
        run = ("llamaforge", "coordinator", "run", "--host", self.head.address)
        home = ("--setenv=HOME=/root", "--unit=llamaforge-coordinator")
        self.head.run("systemd-run", "--quiet", *home, *run)
        self.head.wait_for(
            lambda: self.head.path(f"{STATE}/fleet.json").exists(),
            seconds=30,
            what="the coordinator listens",
            unit="llamaforge-coordinator",
        )

    def _install(self, worker: Node) -> None:
        options = ("--coordinator", f"{self.head.address}:29400", "--ranks", "1")
        token = self.head.read(f"{STATE}/token")
        command = ("llamaforge", "worker", "install", *options, "--token-file", "-")
        worker.run(*command, input=token, timeout=120)
        until_waiting(worker)

    def status(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.head.run("llamaforge", "status", "--json").stdout)
        return told

    def until_both_wait(self) -> None:
        def waiting() -> bool:
            nodes = {node["name"]: node["state"] for node in self.status()["nodes"]}
            return nodes == {"node1": "waiting", "node2": "waiting"}

        self.head.wait_for(waiting, seconds=60, what="both workers wait for a job")

    def train(self, name: str, *more: str) -> Job:
        """Starts a job; returns at once."""
        command = f"cd {JOBS} && llamaforge train {TRAIN} --name {name} {' '.join(more)}"
        script = f"{command} > {name}.log 2>&1"
        return Job(self, name, self.head.spawn("bash", "-c", script))


class Job:
    """A job in its folder on the first machine, and the command that follows it."""

    def __init__(self, fleet: Fleet, name: str, command: Any) -> None:
        self.fleet, self.name, self._command = fleet, name, command

    def _lines(self, file: str) -> list[dict[str, Any]]:
        path = self.fleet.head.path(f"{JOBS}/runs/{self.name}/{file}")
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def steps(self) -> list[int]:
        return [line["step"] for line in self._lines("metrics.jsonl")]

    def until_step(self, step: int) -> None:
        self.fleet.head.wait_for(
            lambda: max(self.steps(), default=0) >= step,
            seconds=180,
            what=f"step {step} of {self.name}",
            unit="llamaforge-coordinator",
        )

    def end(self) -> dict[str, Any]:
        """The proof, once the job is done."""
        self._command.wait(240)
        said = self.fleet.head.read(f"{JOBS}/{self.name}.log")
        assert self._command.returncode == 0, said
        assert self.steps() == list(range(1, STEPS + 1))  # each stands once
        proof: dict[str, Any] = json.loads(
            self.fleet.head.read(f"{JOBS}/runs/{self.name}/proof.json")
        )
        return proof

    def reasons(self) -> list[str]:
        return [e["why"] for e in self._lines("events.jsonl") if e["kind"] == "continues"]


def rows() -> str:
    chance = random.Random(3)
    words = "a worker waits for a job and trains its share of every step".split()  # noqa: SIM905
    some = [
        {
            "instruction": " ".join(chance.choices(words, k=chance.randint(1, 12))),
            "output": " ".join(chance.choices(words, k=chance.randint(1, 9))),
        }
        for _ in range(80)
    ]
    return "".join(json.dumps(row) + "\n" for row in some)


@pytest.fixture(scope="module")
def fleet(lab: Lab) -> Iterator[Fleet]:
    fleet = Fleet(lab)
    yield fleet
    for node in (fleet.one, fleet.two, fleet.head):
        node.power_cut()


@pytest.fixture(scope="module")
def undisturbed(fleet: Fleet) -> dict[str, Any]:
    """The proof of a run that nothing happened to."""
    proof = fleet.train("undisturbed").end()
    assert len(proof["generations"]) == 1
    assert proof["guarantee"] == "same numbers"
    return proof


def same(proof: dict[str, Any], undisturbed: dict[str, Any]) -> bool:
    assert {key: proof[key] for key in DIGESTS} == {key: undisturbed[key] for key in DIGESTS}
    return bool(proof["guarantee"] == "same numbers")


def test_a_restarted_service_costs_the_job_one_generation(
    fleet: Fleet, undisturbed: dict[str, Any]
) -> None:
    job = fleet.train("restarted")
    job.until_step(6)
    fleet.two.run("systemctl", "restart", UNIT, timeout=100)
    proof = job.end()
    assert same(proof, undisturbed)
    first, second = proof["generations"]
    assert first["ended"].startswith("node2 left")
    assert second["first_step"] == first["last_step"] + 1  # nothing was done twice
    assert second["ranks"] == {"node1": 1, "node2": 1}  # the job waited for it
    fleet.until_both_wait()


def test_a_power_cut_of_a_worker_costs_the_steps_since_the_checkpoint(
    fleet: Fleet, undisturbed: dict[str, Any]
) -> None:
    job = fleet.train("dark")
    job.until_step(8)
    fleet.one.power_cut()  # the one with rank 0
    fleet.one.boot()
    proof = job.end()
    assert same(proof, undisturbed)
    (why,) = job.reasons()
    assert why.startswith("node node1 is lost")
    until_waiting(fleet.one)
    fleet.until_both_wait()


def test_a_power_cut_of_the_coordinators_host_and_the_same_command_again(
    fleet: Fleet, undisturbed: dict[str, Any]
) -> None:
    job = fleet.train("headless")
    job.until_step(8)
    fleet.head.power_cut()
    fleet.head.boot()
    fleet.start_coordinator()
    fleet.until_both_wait()  # their orphaned ranks have been ended
    proof = fleet.train("headless", "--auto-resume").end()
    assert same(proof, undisturbed)
    first, second = proof["generations"]
    assert (first["generation"], second["generation"]) == (1, 2)
    assert second["first_step"] > 5
