"""Scripts on a node: real processes and a real store, with a coordinator that exists only here."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
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
    # Each node has a folder of its own, so the dumps come as results.
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
    bare["RES_OPTIONS"] = "timeout:1 attempts:1"  # else it looks for names for a long time
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=2"]
    command += [f"--max-restarts={restarts}", "--rdzv-backend=c10d", "--rdzv-id=demo"]
    command += ["--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
    port = free_port()
    command = [word.replace("127.0.0.1:0", f"127.0.0.1:{port}") for word in command]
    both = [subprocess.Popen([*command, "train.py", "env"], cwd=folder, env=bare) for _ in range(2)]
    assert [process.wait(PATIENCE) for process in both] == [0, 0]
    return {path.name: json.loads(path.read_text()) for path in (folder / "env").glob("*.json")}


def free_port() -> int:
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


async def test_a_script_is_run_as_python_would(tmp_path: Path) -> None:
    """Its arguments, path, neighbours, working directory, and a spawned child that finds it."""
    script = """
import multiprocessing, os, sys
from beside import word
def work(queue):
    queue.put(__name__)
if __name__ == "__main__":
    print("argv", sys.argv)
    print("path", os.path.relpath(sys.path[0]), os.path.relpath(__file__))
    print("cwd", sorted(os.listdir()))
    print("stdin", repr(sys.stdin.read()))
    open("written-beside", "w").write(word)
    print("exists", os.access("run.sh", os.X_OK), os.readlink("here"))
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    child = context.Process(target=work, args=(queue,))
    child.start(); print("child", queue.get()); child.join()
"""
    files = {"sub/train.py": script, "sub/beside.py": "word = 'x'", "run.sh": "true"}
    fleet = Fleet(tmp_path, files, "sub/train.py", "--lr", "1")
    fleet.script = {"executable": ("run.sh",), "links": {"here": "sub/beside.py"}}
    await fleet.run()
    assert fleet.exits[0].code == 0
    assert fleet.lines[0] == [
        "argv ['sub/train.py', '--lr', '1']",
        "path sub sub/train.py",
        "cwd ['here', 'run.sh', 'sub']",
        "stdin ''",
        "exists True sub/beside.py",
        "child __mp_main__",
    ]


async def test_a_module_is_run_as_python_would(tmp_path: Path) -> None:
    module = "import sys, package\nprint(__name__, sys.argv[1:], __spec__.name)"
    files = {"package/__init__.py": "", "package/main.py": module}
    fleet = Fleet(tmp_path, files, "-m", "package.main", "a")
    await fleet.run()
    assert fleet.lines[0] == ["__main__ ['a'] package.main"]


async def test_results_of_rank_0s_node_are_sent_and_told_before_its_end(tmp_path: Path) -> None:
    script = """
import os, pathlib
place = pathlib.Path(os.environ["LLAMAFORGE_OUTPUT"], "sub"); place.mkdir(exist_ok=True)
(place / os.environ["RANK"]).write_text("result")
"""
    fleet = Fleet(tmp_path, {"train.py": script}, "train.py")
    fleet.ranks_per_node = 2
    await fleet.run()
    assert fleet.transfers[0].results == {"sub/0": "result", "sub/1": "result"}
    (finished,) = [r for r in fleet.reports if isinstance(r, ranks.Finished)]
    assert not finished.stopped
    order = [m for m in fleet.said if isinstance(m, RankExited | RankSaid)]
    kinds = [m.rank if isinstance(m, RankExited) else type(m.report).__name__ for m in order]
    assert kinds == ["StoreReady", 1, "Finished", 0]
    assert list((tmp_path / "node-0" / "jobs").iterdir()) == []


async def test_a_failure_names_the_error_and_shows_no_frame_of_ours(tmp_path: Path) -> None:
    script = """
import os
def train():
    raise ValueError("learning rate is negative")
if os.environ["RANK"] == "1":
    train()
"""
    fleet = Fleet(tmp_path, {"train.py": script}, "train.py")
    fleet.ranks_per_node = 2
    await fleet.run()
    (failed,) = [r for r in fleet.reports if isinstance(r, ranks.Failed)]
    assert (failed.kind, failed.message) == ("ValueError", "learning rate is negative")
    assert fleet.exits[1].code == 1
    lines = fleet.exits[1].last_lines
    assert lines[0] == "Traceback (most recent call last):"
    assert "train.py" in lines[1]
    assert not any("script_main" in line or "runpy" in line for line in lines)
    assert not [r for r in fleet.reports if isinstance(r, ranks.Finished)]


@pytest.mark.parametrize(
    ("body", "code", "number", "last"),
    [
        ("import sys; print('bye'); sys.exit(7)", 7, None, "bye"),
        ("import sys; sys.exit('no data')", 1, None, "no data"),
        ("import os; print('x', flush=True); os._exit(3)", 3, None, "x"),
        ("import os; print('x', flush=True); os.kill(os.getpid(), 11)", None, 11, "x"),
        ("def broken(:", 1, None, "SyntaxError: invalid syntax"),
    ],
)
async def test_other_ends_keep_their_code(
    tmp_path: Path, body: str, code: int | None, number: int | None, last: str
) -> None:
    fleet = Fleet(tmp_path, {"train.py": body}, "train.py")
    await fleet.run()
    end = fleet.exits[0]
    assert (end.code, end.signal) == (code, number)
    assert end.last_lines[-1] == last


async def test_asked_to_leave_it_gets_sigterm_and_its_results_are_kept(tmp_path: Path) -> None:
    script = """
import os, pathlib, signal, sys, time
def leave(*_):
    pathlib.Path(os.environ["LLAMAFORGE_OUTPUT"], "state").write_text("saved")
    sys.exit(9)
signal.signal(signal.SIGTERM, leave)
print("up")
time.sleep(60)
"""
    fleet = Fleet(tmp_path, {"train.py": script}, "train.py")
    running = asyncio.ensure_future(fleet.run())
    await asyncio.wait_for(fleet.printed.wait(), PATIENCE)
    fleet.jobs[0].stop("checkpoint", "the node drains")
    await running
    (finished,) = [r for r in fleet.reports if isinstance(r, ranks.Finished)]
    assert finished.stopped
    assert fleet.transfers[0].results == {"state": "saved"}
    assert (fleet.exits[0].code, fleet.exits[0].ordered) == (9, True)


async def test_a_stop_before_the_ranks_meet_starts_nothing(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, {"train.py": "print('ran')"}, "train.py", nodes=2)
    fleet.hear = fleet.said.append  # type: ignore[method-assign]  # nobody introduces them
    running = asyncio.ensure_future(fleet.run())
    while not fleet.exits:
        await asyncio.sleep(0.01)
    fleet.jobs[1].stop("end", "cancelled")
    await running
    (told,) = [m for m in fleet.said if isinstance(m, CannotStart)]
    assert "cancelled" in told.message
    assert set(fleet.lines) == {0}


async def test_a_signal_shows_where_a_script_stands(tmp_path: Path) -> None:
    script = "import time\ndef waits_here():\n    time.sleep(60)\nprint('up')\nwaits_here()"
    fleet = Fleet(tmp_path, {"train.py": script}, "train.py")
    running = asyncio.ensure_future(fleet.run())
    await asyncio.wait_for(fleet.printed.wait(), PATIENCE)
    (rank,) = fleet.jobs[0]._ranks.values()
    os.kill(rank.pid, signal.SIGUSR2)
    stacks = tmp_path / "node-0" / "jobs" / "demo.1" / "rank-0.stacks"
    while "waits_here" not in stacks.read_text():
        await asyncio.sleep(0.01)
    fleet.jobs[0].kill()
    await running


async def test_a_store_at_a_foreign_address_is_refused(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, {"train.py": ""}, "train.py")
    source = fleet._job

    def elsewhere(name: str, order: StartRanks) -> NodeScript:
        job = source(name, order)
        job._address = "192.0.2.77"
        return job

    fleet._job = elsewhere  # type: ignore[method-assign]
    await fleet.run()
    (told,) = [m for m in fleet.said if isinstance(m, CannotStart)]
    assert "192.0.2.77" in told.message
    assert "--address" in told.hint
