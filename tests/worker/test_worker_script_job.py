"""Scripts on a node: real processes and a real store, with a coordinator that exists only here."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llamaforge.bundle.manifest import Entry, Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.spec import ranks
from llamaforge.spec.fleet import worker_settings
from llamaforge.spec.script import ScriptJob
from llamaforge.wire.messages import (
    CannotStart,
    FromWorker,
    Peer,
    RankExited,
    RankLog,
    RankSaid,
    Rendezvous,
    StartRanks,
    Uploaded,
)
from llamaforge.worker.process_runner import ProcessRunner
from llamaforge.worker.script_environment import reserved
from llamaforge.worker.script_job import NodeScript

PATIENCE = 60.0


class Transfers:
    """The way to a coordinator that has everything."""

    def __init__(self, source: dict[str, bytes]) -> None:
        self.source = source
        self.results: dict[str, str] = {}

    async def __aenter__(self) -> Transfers:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def fetch_missing(
        self, manifest: Manifest, store: BlobStore, *_: object, **__: object
    ) -> tuple[Entry, ...]:
        for entry in manifest.entries:
            store.add_bytes(self.source[entry.path])
        return manifest.entries

    async def send_artifacts(self, job_id: str, folder: Path) -> None:
        files = [path for path in folder.rglob("*") if path.is_file()]
        self.results = {str(path.relative_to(folder)): path.read_text() for path in files}


class Fleet:
    """Nodes of one generation of a script, all on this machine."""

    def __init__(self, root: Path, files: dict[str, str], *command: str, nodes: int = 1) -> None:
        self.root, self.command, self.nodes = root, command, nodes
        self.files = {f"code/{name}": text.encode() for name, text in files.items()}
        self.ranks_per_node = 1
        self.script: dict[str, object] = {}
        self.exports: dict[str, str] = {}
        self.restarts = 0
        self.said: list[FromWorker] = []
        self.jobs: list[NodeScript] = []
        self.transfers: list[Transfers] = []
        self.printed = asyncio.Event()

    async def run(self) -> None:
        await asyncio.wait_for(self.start(), PATIENCE)

    async def start(self) -> None:
        source, entries = BlobStore(self.root / "source"), []
        for path, data in self.files.items():
            sha256, size = source.add_bytes(data)
            entries.append(Entry(path=path, sha256=sha256, size=size))
        names = [f"node-{number}" for number in range(self.nodes)]
        for number, name in enumerate(names):
            order = StartRanks(
                script=ScriptJob(id="demo", command=self.command, **self.script),  # type: ignore[arg-type]
                generation=1,
                manifest=Manifest(entries=tuple(entries)),
                first_rank=number * self.ranks_per_node,
                count=self.ranks_per_node,
                world_size=self.nodes * self.ranks_per_node,
                peers=tuple(Peer(node=one, address="127.0.0.1", port=1) for one in names),
                restarts=self.restarts,
            )
            self.jobs.append(self._job(name, order))
        await asyncio.gather(*(job.run() for job in self.jobs))

    def _job(self, name: str, order: StartRanks) -> NodeScript:
        state, cache = self.root / name, self.root / f"{name}-cache"
        settings = worker_settings({"state_dir": str(state), "cache_dir": str(cache)}, {})
        self.transfers.append(Transfers(self.files))
        return NodeScript(
            order,
            node=name,
            address="127.0.0.1",
            jobs=state / "jobs",
            cache=cache,
            runner=ProcessRunner(settings, self.exports),
            http=self.transfers[-1],
            send=self.hear,
        )

    def hear(self, message: FromWorker) -> None:
        self.said.append(message)
        if isinstance(message, RankLog):
            self.printed.set()
        if isinstance(message, RankSaid) and isinstance(message.report, ranks.StoreReady):
            for job in self.jobs:
                job.rendezvous(
                    Rendezvous(
                        job_id="demo",
                        generation=1,
                        host=message.report.host,
                        port=message.report.port,
                    )
                )

    @property
    def lines(self) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for message in self.said:
            if isinstance(message, RankLog):
                found.setdefault(message.rank, []).append(message.line)
        return found

    @property
    def reports(self) -> list[ranks.FromRank]:
        return [message.report for message in self.said if isinstance(message, RankSaid)]

    @property
    def exits(self) -> dict[int, RankExited]:
        return {m.rank: m for m in self.said if isinstance(m, RankExited)}


ENVIRONMENT = """
import json, os, pathlib, sys
import torch, torch.distributed as dist
dist.init_process_group("gloo")
total = torch.ones(1) * (dist.get_rank() + 1)
dist.all_reduce(total)
dist.barrier()
dist.destroy_process_group()
place = pathlib.Path(sys.argv[1]); place.mkdir(exist_ok=True)
(place / f"{os.environ['RANK']}.json").write_text(json.dumps(dict(os.environ)))
print("the sum is", int(total.item()))
"""


async def test_ranks_meet_across_nodes_in_torchruns_environment(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, {"train.py": ENVIRONMENT}, "train.py", "env", nodes=2)
    fleet.ranks_per_node = 2
    fleet.script = {"max_restarts": 5, "environment": {"MINE": "yes"}}
    fleet.restarts = 2
    # Each node has a folder of its own, so the dumps are read through the results.
    fleet.files["code/train.py"] = ENVIRONMENT.replace(
        "sys.argv[1]", "os.environ['LLAMAFORGE_OUTPUT']"
    ).encode()
    await fleet.run()
    assert {rank: end.code for rank, end in fleet.exits.items()} == dict.fromkeys(range(4), 0)
    assert all("the sum is 10" in lines for lines in fleet.lines.values())
    ours = {name: json.loads(text) for name, text in fleet.transfers[0].results.items()}
    assert set(ours) == {"0.json", "1.json"}
    theirs = torchrun(tmp_path / "theirs", restarts=5)
    for name, environment in ours.items():
        same_environment(environment, theirs[name])
        assert environment["MINE"] == "yes"
        assert environment["TORCHELASTIC_RESTART_COUNT"] == "2"


def torchrun(folder: Path, *, restarts: int) -> dict[str, dict[str, str]]:
    """The environments that a real torchrun gives to four ranks, without what it inherits."""
    folder.mkdir()
    (folder / "train.py").write_text(ENVIRONMENT)
    bare = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=2"]
    command += [f"--max-restarts={restarts}", "--rdzv-backend=c10d", "--rdzv-id=demo"]
    command += ["--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
    command[3:3] = []
    port = free_port()
    command = [word.replace("127.0.0.1:0", f"127.0.0.1:{port}") for word in command]
    both = [subprocess.Popen([*command, "train.py", "env"], cwd=folder, env=bare) for _ in range(2)]
    assert [process.wait(PATIENCE) for process in both] == [0, 0]
    return {path.name: json.loads(path.read_text()) for path in (folder / "env").glob("*.json")}


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


DIFFER = {
    "MASTER_PORT",
    "TORCHELASTIC_ERROR_FILE",
    "TORCHELASTIC_RESTART_COUNT",  # the test's own
    "TORCHELASTIC_USE_AGENT_STORE",  # rank 0 hosts the store itself; documented
}


def same_environment(ours: dict[str, str], theirs: dict[str, str]) -> None:
    """Every variable that torchrun sets is there, with its value."""
    given = {name for name in theirs if name not in ("PATH", "HOME", "PWD", "LC_CTYPE")}
    assert given - set(ours) == set()
    shared = given - DIFFER
    # Which torchrun is the first node is not known before.
    assert {n: ours[n] for n in shared} == {n: theirs[n] for n in shared}
    assert {n for n in ours if reserved(n)} <= given | {"LLAMAFORGE_OUTPUT"}
