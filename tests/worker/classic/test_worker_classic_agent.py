"""The child that joins: its command line, its environment, its output, and its end."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections import deque
from pathlib import Path

import msgspec
import pytest
from torch.distributed.run import get_args_parser

from llamaforge.spec.fleet import WorkerSettings, worker_settings
from llamaforge.spec.ranks import Failed, Finished
from llamaforge.worker.classic.agent import (
    Agent,
    Seat,
    Transcript,
    command,
    ending,
    environment,
    verdict,
)
from llamaforge.worker.confine import Confinement

SETTINGS = WorkerSettings(
    name="pi",
    state_dir="/state",
    cache_dir="/cache",
    master_addr="big",
    node_rank=2,
    world_size=3,
    nproc_per_node=4,
    hf_home="/hf",
    stop_seconds=20,
)
SEAT = Seat(
    store_address="10.0.0.1", store_port=29500, local_address="10.0.0.7", folder=Path("/state/job")
)


def test_the_command_is_torchrun_with_this_nodes_place() -> None:
    argv = command(SETTINGS, SEAT)
    assert argv[1:3] == ["-m", "torch.distributed.run"]
    for word in (
        "--nnodes=3",
        "--node_rank=2",
        "--nproc_per_node=4",
        "--master_addr=10.0.0.1",
        "--master_port=29500",
        "--local_addr=10.0.0.7",
    ):
        assert word in argv
    assert argv[argv.index("llamaforge.train.classic.peer") + 1 :] == [
        *("--name", "pi", "--cache-dir", "/cache", "--folder", "/state/job"),
        *("--network-timeout", "600.0"),
    ]


def test_a_relative_cache_is_where_the_worker_was_started(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    argv = command(msgspec.structs.replace(SETTINGS, cache_dir="c"), SEAT)
    assert argv[argv.index("--cache-dir") + 1] == str(tmp_path / "c")


def test_cores_and_address_are_handed_on_where_they_are_set() -> None:
    argv = command(msgspec.structs.replace(SETTINGS, cores=3, address="10.0.0.9"), SEAT)
    assert argv[-6:-2] == ["--cores", "3", "--address", "10.0.0.9"]


def test_torchrun_leaves_the_ranks_arguments_to_the_rank() -> None:
    parsed = get_args_parser().parse_args(command(SETTINGS, SEAT)[3:])
    assert parsed.training_script == "llamaforge.train.classic.peer"
    assert parsed.training_script_args[:2] == ["--name", "pi"]
    assert (parsed.node_rank, parsed.nnodes, parsed.module) == (2, "3", True)


def test_the_environment_can_not_override_the_command_line() -> None:
    environ = environment(
        SETTINGS,
        {"PATH": "/bin", "PET_NNODES": "9", "WORLD_SIZE": "3", "MASTER_ADDR": "x", "RANK": "1"},
        {},
    )
    assert environ["PATH"] == "/bin"
    assert not {"PET_NNODES", "WORLD_SIZE", "MASTER_ADDR", "RANK"} & environ.keys()
    assert environ["HF_HOME"] == "/hf"
    assert environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "20"


def test_the_resolver_gives_up_soon_and_keeps_its_other_options() -> None:
    assert environment(SETTINGS, {}, {})["RES_OPTIONS"] == "timeout:1 attempts:1"
    kept = environment(SETTINGS, {"RES_OPTIONS": "rotate"}, {})["RES_OPTIONS"]
    assert kept == "rotate timeout:1 attempts:1"


async def start(tmp_path: Path, script: str, stop_seconds: float = 10) -> Agent:
    return await Agent.start(
        [sys.executable, "-uc", script],
        os.environ,
        folder=tmp_path,
        stop_seconds=stop_seconds,
        confinement=Confinement(worker_settings({}, {}), os.environ),
    )


async def test_every_line_is_handed_on(tmp_path: Path) -> None:
    lines: list[str] = []
    agent = await start(
        tmp_path, "import sys\nprint('a')\nprint('b', file=sys.stderr)\nprint(end='c')\nexit(3)"
    )
    assert await agent.run(lines.append) == 3
    assert lines == ["a", "b", "c"]
    assert list(agent.last_lines) == lines


async def test_an_endless_line_does_not_end_it(tmp_path: Path) -> None:
    lines: list[str] = []
    agent = await start(tmp_path, "print('x' * 300_000); print('end')")
    assert await agent.run(lines.append) == 0
    assert sum(map(len, lines)) == 300_003
    assert lines[-1].endswith("end")


async def test_stop_asks_first(tmp_path: Path) -> None:
    script = (
        "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('ready')\nsignal.pause()"
    )
    agent = await start(tmp_path, script)
    ready = asyncio.Event()
    run = asyncio.create_task(agent.run(lambda _: ready.set()))
    await ready.wait()
    await agent.stop()
    assert await run == 7


async def test_stop_asks_the_ranks_and_not_the_agent(tmp_path: Path) -> None:
    rank = (
        "import os, signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(5));"
        "open('rank-0.pid', 'w').write(str(os.getpid())); print('ready', flush=True);"
        "signal.pause()"
    )
    script = (
        "import subprocess, sys\n"
        f"rank = subprocess.Popen([sys.executable, '-c', {rank!r}], start_new_session=True)\n"
        "print('the rank ended with', rank.wait())"
    )
    (tmp_path / "rank-1.pid").write_text("1")  # stale: not a child of the agent
    lines: list[str] = []
    agent = await start(tmp_path, script)
    ready = asyncio.Event()
    run = asyncio.create_task(agent.run(lambda line: (lines.append(line), ready.set())))
    await ready.wait()
    await agent.stop()
    assert await run == 0
    assert lines == ["ready", "the rank ended with 5"]


async def test_stop_kills_what_does_not_listen(tmp_path: Path) -> None:
    script = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready')\n"
    agent = await start(tmp_path, script + "while True: signal.pause()", stop_seconds=-4.9)
    ready = asyncio.Event()
    run = asyncio.create_task(agent.run(lambda _: ready.set()))
    await ready.wait()
    await agent.stop()
    assert await run == -signal.SIGKILL


def test_the_agent_ends_with_its_worker(tmp_path: Path) -> None:
    worker = subprocess.Popen(
        [
            sys.executable,
            "-uc",
            "import asyncio, os, sys\nfrom pathlib import Path\n"
            "from llamaforge.spec.fleet import worker_settings\n"
            "from llamaforge.worker.classic.agent import Agent\n"
            "from llamaforge.worker.confine import Confinement\n"
            "async def main():\n"
            "    agent = await Agent.start(['sleep', '60'], os.environ, folder=Path('.'),"
            " stop_seconds=1, confinement=Confinement(worker_settings({}, {}), {}))\n"
            "    print(agent._process.pid)\n"
            "    await asyncio.sleep(60)\n"
            "asyncio.run(main())",
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert worker.stdout is not None
    child = os.pidfd_open(int(worker.stdout.readline()))
    worker.kill()
    worker.wait()
    assert select.select([child], [], [], 10)[0], "the agent outlived its worker"
    os.close(child)


def report(folder: Path, local_rank: int, said: Finished | Failed, at: int) -> None:
    path = folder / f"report-{local_rank}.json"
    path.write_bytes(msgspec.json.encode(said))
    os.utime(path, ns=(at, at))


def test_the_first_failure_is_the_verdict(tmp_path: Path) -> None:
    report(tmp_path, 0, Failed(kind="GroupBroken", message="lost a peer"), at=2)
    report(tmp_path, 1, Failed(kind="NotFinite", message="NaN"), at=1)
    report(tmp_path, 2, Finished(artifacts="", proof={}), at=0)
    said = verdict(tmp_path)
    assert isinstance(said, Failed)
    assert said.message == "NaN"


def test_without_failures_the_end_is_the_verdict(tmp_path: Path) -> None:
    report(tmp_path, 0, Finished(artifacts="", proof={}, stopped=True), at=1)
    said = verdict(tmp_path)
    assert isinstance(said, Finished)
    assert said.stopped


def test_a_torn_report_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "report-0.json").write_text('{"type": "fin')
    said = verdict(tmp_path)
    assert isinstance(said, Failed)
    assert "report-0.json" in said.message


def test_no_report_is_no_verdict(tmp_path: Path) -> None:
    assert verdict(tmp_path) is None


def test_an_end_without_a_report_has_its_exit_and_the_last_line() -> None:
    assert "exit code 1" in ending(1, deque(["ImportError: no torch"]))
    assert "ImportError: no torch" in ending(1, deque(["ImportError: no torch"]))
    assert "SIGKILL" in ending(-9, deque())


POST_MORTEM = (
    "E1123 04:16:32.5 14358 torch/distributed/elastic/multiprocessing/api.py:1002] failed "
    "(exitcode: 2) local_rank: 0 (pid: 1) of binary: python"
)


@pytest.mark.parametrize("explained", [True, False])
def test_torchruns_report_is_logged_only_where_no_rank_explained(explained: bool) -> None:
    lines: list[str] = []
    transcript = Transcript(lines.append)
    for line in ("error: no such option", POST_MORTEM, "Traceback"):
        transcript(line)
    assert lines == ["error: no such option"]
    transcript.end(explained=explained)
    assert lines[1:] == ([] if explained else [POST_MORTEM, "Traceback"])


def test_torchruns_report_on_a_rank_says_how_that_ended() -> None:
    report = deque(["  local_rank: 0", "  exitcode  : -9 (pid: 7)", "  error_file: <N/A>", "===="])
    assert ending(1, report) == "a rank ended with SIGKILL before it could say why"
    assert ending(-35, deque()) == "torchrun ended with signal 35 before a rank could say why"
