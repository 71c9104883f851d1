"""The classic way as a user has it: real torchrun, a real worker, real ranks, one after the other.

One worker stays up through all of it and is never touched; it has its own state and cache, so
everything that it trains on has come from rank 0.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from models import make_model

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPT = REPOSITORY / "distributed_train.py"
PATIENCE = 120.0  # seconds; runs take a tenth of it on an idle machine


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for(what: Callable[[], Any], why: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < deadline, why
        time.sleep(0.05)
    return found


class Worker:
    """`llamaforge worker run` in the background, and what it has logged."""

    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        self._log = home / "log"
        self._read = 0
        command = [sys.executable, "-m", "llamaforge", "worker", "run", "--name=pi"]
        command += [f"--state-dir={home / 'state'}", f"--cache-dir={home / 'cache'}"]
        command += [f"--peer-port={free_port()}"]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "XDG_STATE_HOME": str(home / "xdg"),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                    "NODE_RANK": "1",
                    "WORLD_SIZE": "2",
                },
            )

    def news(self) -> str:
        """What was logged since `heard` was called last."""
        return self._log.read_text()[self._read :]

    def heard(self, pattern: str) -> str:
        """Waits until a new line matches, and returns it."""

        def find() -> re.Match[str] | None:
            assert self.process.poll() is None, self.news()
            return re.search(f"^.*{pattern}.*$", self.news(), re.MULTILINE)

        match = wait_for(find, f"the worker never said {pattern!r}:\n{self._log.read_text()}")
        self._read += match.end()
        return str(match[0])


class Mute(BaseHTTPRequestHandler):
    """A web server without a log."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Site:
    """The coordinator's side: folders, a model, rows, and the commands that a user types."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = free_port()
        self.model = make_model(root / "model")
        self.rows = root / "rows.jsonl"
        lines = [
            {"instruction": f"Say {n} twice.", "input": "", "output": f"{n} {n}"} for n in range(40)
        ]
        self.rows.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def options(self, name: str, *more: str) -> list[str]:
        options = [f"--model={self.model}", f"--dataset={self.rows}", "--epochs=1"]
        options += ["--batch-size=2", "--max-steps=8", "--heldout=0.1"]
        options += [f"--name={name}", f"--checkpoint-dir={self.root / 'checkpoints' / name}"]
        return [*options, *more]

    def start(
        self, *arguments: str, nodes: int = 2, processes: int = 1, script: Path = SCRIPT
    ) -> subprocess.Popen[str]:
        """Starts the classic command."""
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
        command += [f"--nnodes={nodes}", "--node_rank=0", "--master_addr=127.0.0.1"]
        return self._popen([*command, f"--master_port={self.port}", str(script), *arguments])

    def alone(self, *arguments: str) -> str:
        """Runs `python3 distributed_train.py` to its end."""
        return self.finished(self._popen([sys.executable, str(SCRIPT), *arguments]))

    def _popen(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.root,
            env={**os.environ, "XDG_CACHE_HOME": str(self.root / "cache")},
        )

    def finished(self, process: subprocess.Popen[str]) -> str:
        """Waits for a good end and returns the output."""
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, output
        return output

    def proof(self, name: str) -> dict[str, Any]:
        return json.loads((self.root / "runs" / name / "proof.json").read_text())

    def shares(self, name: str) -> dict[str, int]:
        """Slices by node over all steps."""
        total: dict[str, int] = {}
        for line in (self.root / "runs" / name / "metrics.jsonl").read_text().splitlines():
            for node, count in json.loads(line).get("shares", {}).items():
                total[node] = total.get(node, 0) + count
        return total


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def worker(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker that first meets a web server where torchrun should be."""
    web = HTTPServer(("127.0.0.1", site.port), Mute)
    Thread(target=web.serve_forever, daemon=True).start()
    worker = Worker(tmp_path_factory.mktemp("worker"), site.port)
    try:
        worker.heard(r"no torchrun store .* but an HTTP server .*; waiting")
        web.shutdown()
        web.server_close()
        worker.heard(rf"nothing listens on 127.0.0.1:{site.port}; waiting")
        yield worker
    finally:
        worker.process.terminate()
        worker.process.wait(PATIENCE)


def test_the_worker_joins_gets_everything_from_rank_0_and_trains_its_share(
    site: Site, worker: Worker
) -> None:
    output = site.finished(site.start(*site.options("first")))
    worker.heard(r"torchrun waits on .* \(1 of 2 nodes\); joining")
    worker.heard("receiving from")
    worker.heard("done; waiting for the next")
    assert "4 rows per step = 2 per process x 2 processes" in output
    assert re.search(r"sending to pi: \d+ files", output)
    assert site.shares("first")["pi"] > 0
    assert site.proof("first")["rows_trained"] == 32
    assert (site.root / "runs" / "first" / "adapter_model.safetensors").is_file()
    assert list((worker.home / "cache" / "blobs").rglob("*"))
    left = worker.home / "state" / "classic"
    wait_for(lambda: not list(left.iterdir()), "the job's folder is removed after the last word")


def test_the_second_job_with_unequal_processes_comes_through_a_link_and_ships_no_model(
    site: Site, worker: Worker
) -> None:
    link = site.root / "elsewhere" / "train.py"
    link.parent.mkdir()
    link.symlink_to(SCRIPT)
    output = site.finished(site.start(*site.options("second"), processes=2, script=link))
    worker.heard("done; waiting for the next")
    assert "6 rows per step = 2 per process x 3 processes" in output
    assert "sending to" not in output
    assert sum(generation["ranks"]["pi"] for generation in site.proof("second")["generations"]) == 1


def test_a_wrong_option_is_one_message_and_exit_code_2_and_the_worker_waits_on(
    site: Site, worker: Worker
) -> None:
    process = site.start("--modle=x")
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert output.count("error: no such option --modle; did you mean --model?") == 1
    assert re.search(r"exitcode *: 2 ", output)
    worker.heard("the attempt failed: no such option --modle; .*; waiting for the next")


def test_a_stopped_job_goes_on_with_another_number_of_processes_to_the_same_weights(
    site: Site, worker: Worker
) -> None:
    process = site.start(*site.options("third"))
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    assert any(line.startswith("step 1/8") for line in lines)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    worker.heard("left early after a checkpoint; waiting for the next")
    stopped_at = site.proof("third")["steps"]
    assert stopped_at < 8

    output = site.alone(*site.options("third", "--auto-resume"))
    assert "4 rows per step, kept from the checkpoint" in output
    first, third = site.proof("first"), site.proof("third")
    assert third["generations"][-1]["first_step"] == stopped_at + 1
    for key in ("weights_sha256", "optimizer_sha256", "order_sha256", "rows_trained"):
        assert third[key] == first[key]


def test_a_coordinator_that_is_killed_frees_the_worker_within_seconds(
    site: Site, worker: Worker
) -> None:
    process = site.start(*site.options("fourth", "--max-steps=10", "--epochs=9"))
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    assert any(line.startswith("step 1/10") for line in lines)
    process.kill()
    killed = time.monotonic()
    worker.heard("the attempt failed: .*; waiting for the next")
    assert time.monotonic() - killed < 30
    process.wait()


def test_the_log_has_no_line_for_looks_that_saw_nothing_new(site: Site, worker: Worker) -> None:
    worker.heard(rf"nothing listens on 127.0.0.1:{site.port}; waiting")
    time.sleep(3)
    assert worker.news().strip() == ""


def test_a_worker_that_is_stopped_leaves_at_a_step_and_keeps_nobody_waiting(
    site: Site, worker: Worker
) -> None:
    process = site.start(*site.options("fifth", "--max-steps=200", "--epochs=99"))
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    assert any(line.startswith("step 1/200") for line in lines)
    worker.process.terminate()
    output = site.finished(process)
    assert "the same command with --auto-resume continues there" in output
    assert worker.process.wait(PATIENCE) == 0
    assert list((site.root / "checkpoints" / "fifth").iterdir())
