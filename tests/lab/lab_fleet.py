"""A coordinator and worker services in a lab, and jobs that a person starts on its host."""

from __future__ import annotations

import json
import random
from typing import Any

from lab_service import until_waiting

from lab import Node

JOBS = "/srv/jobs"
STATE = "/var/lib/llamaforge-coordinator"
RUNTIME = "/run/llamaforge-coordinator"
COORDINATOR = "llamaforge-coordinator"
"""The coordinator's unit."""
TRAIN = (
    "--model tiny --dataset rows.jsonl --batch-size 6 --learning-rate 1e-3 --lora-dropout 0.1 "
    "--epochs 4000"
)


class Fleet:
    """A booted machine that becomes the coordinator's host, and workers that join it.

    Args:
        head: the machine.
        options: of `llamaforge coordinator install`.
    """

    def __init__(self, head: Node, *options: str) -> None:
        self.head = head
        self.workers: list[Node] = []
        head.write(f"{JOBS}/rows.jsonl", rows())
        head.run("llamaforge", "coordinator", "install", *options, timeout=120)
        self.until_listening()

    @property
    def address(self) -> str:
        """HOST:PORT of its coordinator."""
        return f"{self.head.address}:29400"

    def until_listening(self) -> None:
        """Until the coordinator answers people on its host."""
        self.head.wait_for(
            lambda: self.head.run("llamaforge", "status", check=False).returncode == 0,
            seconds=60,
            what="the coordinator listens",
            unit=COORDINATOR,
        )

    def token(self, *options: str) -> str:
        """A new token, for one node unless the options say otherwise."""
        done = self.head.run("llamaforge", "coordinator", "token", "--json", *options)
        return str(json.loads(done.stdout)["token"])

    def join(self, worker: Node, *options: str) -> None:
        """Installs the service on a booted node as one of this fleet."""
        words = ("--coordinator", self.address, "--ranks", "1", *options)
        command = ("llamaforge", "worker", "install", *words, "--token-file", "-")
        worker.run(*command, input=self.token(), timeout=120)
        until_waiting(worker, seconds=60)
        self.workers.append(worker)
        self.until_all_wait()

    def states(self) -> dict[str, str]:
        """State of each node that the coordinator knows, by name."""
        told = json.loads(self.head.run("llamaforge", "status", "--json").stdout)
        return {node["name"]: node["state"] for node in told["nodes"]}

    def until_all_wait(self) -> None:
        """Until the coordinator sees every worker wait for a job."""
        wanted = {worker.name: "ready" for worker in self.workers}
        self.head.wait_for(
            lambda: self.states() == wanted, seconds=90, what="all workers wait for a job"
        )

    def train(self, name: str, steps: int, *more: str) -> Job:
        """Starts a job; returns at once."""
        words = f"{TRAIN} --max-steps {steps} --name {name} {' '.join(more)}"
        script = f"cd {JOBS} && exec llamaforge train {words} > {name}.log 2>&1"
        return Job(self.head, name, steps, self.head.spawn("bash", "-c", script))


class Job:
    """A job in the coordinator's folder, and the command that follows it and fetches its files."""

    def __init__(self, head: Node, name: str, total: int, command: Any) -> None:
        self.head, self.name, self.total, self._command = head, name, total, command

    @property
    def folder(self) -> str:
        """The coordinator's own, as long as it keeps the job."""
        return f"{STATE}/jobs/{self.name}"

    @property
    def fetched(self) -> str:
        """Where the command puts the files in the end."""
        return f"{JOBS}/runs/{self.name}"

    def said(self) -> str:
        """What the command has printed."""
        return self.head.read(f"{JOBS}/{self.name}.log")

    def _lines(self, file: str) -> list[dict[str, Any]]:
        path = self.head.path(f"{self.folder}/{file}")
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def steps(self) -> list[int]:
        """Committed steps."""
        return [line["step"] for line in self._lines("metrics.jsonl")]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Lines of events.jsonl of one kind."""
        return [event for event in self._lines("events.jsonl") if event["kind"] == kind]

    def until_step(self, step: int, seconds: float = 180) -> None:
        self.head.wait_for(
            lambda: max(self.steps(), default=0) >= step,
            seconds=seconds,
            what=f"step {step} of {self.name}",
            unit=COORDINATOR,
        )

    def checkpoints(self) -> list[str]:
        """Names of the checkpoint folders."""
        path = self.head.path(f"{self.folder}/checkpoints")
        return sorted(found.name for found in path.iterdir()) if path.exists() else []

    def end(self, seconds: float = 300) -> dict[str, Any]:
        """The proof, once the job is done; each step stands in the metrics once."""
        self._command.wait(seconds)
        assert self._command.returncode == 0, self.said()
        assert self.steps() == list(range(1, self.total + 1))
        proof: dict[str, Any] = json.loads(self.head.read(f"{self.fetched}/proof.json"))
        return proof

    def fails(self, seconds: float = 120) -> str:
        """What the command says when the job ends in another way."""
        self._command.wait(seconds)
        assert self._command.returncode != 0, self.said()
        return self.said()

    def cancel(self) -> None:
        """Ctrl-C: the job saves and ends."""
        self._command.send_signal(2)
        self._command.wait(90)


def rows() -> str:
    """A small dataset."""
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
