"""A real coordinator and real workers (with fake ranks) as processes, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from signal import Signals

import msgspec

from jobs import make_job
from llamaforge.bundle.manifest import Entry, Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import LlamaForgeError
from llamaforge.spec.job import Job
from llamaforge.spec.states import NodeState
from llamaforge.wire import fleet_file
from llamaforge.wire.api import Status
from llamaforge.wire.client import FleetClient
from llamaforge.wire.updates import Ended, JobUpdate, MetricLine

WORKER = Path(__file__).parent / "fleet" / "worker_with_fakes.py"
PATIENCE = 30.0


class Rig:
    """Starts and stops processes; everything stands under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fleet_file = root / "coordinator" / "fleet.json"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def coordinator(self, *, port: int = 0, **flags: object) -> None:
        options = {"node-grace": 1.0, "stop-seconds": 10.0, "return-grace": 0.5, **flags}
        args = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        folders = ["--state-dir", self.folder("coordinator"), "--cache-dir", self.folder("cc")]
        program = [sys.executable, "-m", "llamaforge", "coordinator", "run"]
        self._start("coordinator", [*program, "--port", str(port), *folders, *args])

    def worker(self, name: str, **flags: object) -> None:
        options = {
            "name": name,
            "fleet": self.fleet_file,
            "state_dir": self.folder(name),
            "cache_dir": self.folder(f"{name}-cache"),
            "peer_port": 0,
            "cores": 2,
            **flags,
        }
        words = [f"{option}={value}" for option, value in options.items() if value is not None]
        self._start(name, [sys.executable, str(WORKER), *words])

    def folder(self, name: str) -> str:
        return str(self.root / name)

    def log(self, name: str) -> str:
        return (self.root / f"{name}.log").read_text()

    def send(self, name: str, number: Signals) -> None:
        self.processes[name].send_signal(number)

    def end(self, name: str, number: Signals = Signals.SIGTERM) -> int:
        self.send(name, number)
        return self.processes.pop(name).wait(PATIENCE)

    def close(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def client(self) -> FleetClient:
        self.wait(lambda: fleet_file.find(self.fleet_file) is not None, "the coordinator listens")
        return FleetClient.open(self.fleet_file)

    async def status(self) -> Status:
        async with self.client() as client:
            return await client.status()

    async def waiting(self, *names: str) -> Status:
        """Waits until these nodes wait for a job, and no other does.

        A coordinator that was started again may have to write its fleet file first: until then the
        old one leads to a socket on which nobody listens.
        """
        until = time.monotonic() + PATIENCE
        while True:
            try:
                status = await self.status()
                there = {n.name for n in status.nodes if n.state is NodeState.READY}
            except LlamaForgeError as why:
                there = {str(why)}
            if there == set(names):
                return status
            assert time.monotonic() < until, f"{there} wait, not {names}: {self.log('coordinator')}"
            time.sleep(0.05)

    def wait(self, ready: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + PATIENCE
        while not ready():
            assert time.monotonic() < until, f"not so after {PATIENCE} s: {what}"
            time.sleep(0.02)

    def job(self, name: str, script: str, **spec: object) -> tuple[Job, Manifest, BlobStore]:
        """A job whose fake ranks do what `script` says."""
        store = BlobStore(self.root / "user")
        sha256, size = store.add_bytes(f"rows of {name}".encode())
        manifest = Manifest(entries=(Entry(path="data/train.jsonl", sha256=sha256, size=size),))
        job = msgspec.structs.replace(make_job(**{**spec, "dataset": script}), id=name)
        return job, manifest, store

    async def submit(self, client: FleetClient, name: str, script: str, **spec: object) -> str:
        job, manifest, store = self.job(name, script, **spec)
        return await client.submit(
            job,
            manifest,
            store,
            output_dir=self.root / "runs" / name,
            checkpoint_dir=self.root / "runs" / name / "checkpoints",
        )

    async def run(self, name: str, script: str, **spec: object) -> tuple[Ended, list[JobUpdate]]:
        """Submits a job and follows it to its end."""
        async with self.client() as client:
            await self.submit(client, name, script, **spec)
            updates = [update async for update in client.follow(name)]
        ended = updates[-1]
        assert isinstance(ended, Ended)
        return ended, updates

    def ranks(self) -> list[int]:
        """Process ids of the fake ranks of this rig that are alive."""
        return [
            pid for pid in pids() if "fake_rank.py" in (c := cmdline(pid)) and str(self.root) in c
        ]

    def _start(self, name: str, command: list[str]) -> None:
        log = self.root / f"{name}.log"
        with log.open("ab") as output:
            self.processes[name] = subprocess.Popen(command, stdout=output, stderr=output)


async def until_metric(updates: AsyncIterator[JobUpdate]) -> None:
    """Reads on until the job trains."""
    async for update in updates:
        if isinstance(update, MetricLine):
            return
    raise AssertionError("the job ended before it trained")


def pids() -> list[int]:
    """All process ids."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def cmdline(pid: int) -> str:
    """A process's command line; empty when it is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
