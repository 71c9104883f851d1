"""How long a job takes from its submission to its first committed step.

    .venv/bin/python bench/launch.py [--turns 3] [--steps 3]

Ours: `llamaforge train` on a warm fleet, which is two workers on this machine that have run such a
job before and now wait. The peer: the same training under a cold torchrun, `distributed_train.py`
with two processes. They take turns in the same minutes; the figures are medians.

- `ours`, `peer`: seconds from the start of the command until metrics.jsonl has the first step,
  which it has once the step is committed;
- `from_queue_s`: ours from the moment at which the coordinator has the job, so without the command
  line's own start and its reading of the data;
- `to_end_s` and `peer_to_end_s`: until the command ends.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llamaforge.cli.embedded import EmbeddedFleet
from llamaforge.monitor import metrics

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "examples" / "datasets" / "alpaca_1k.jsonl"
PATIENCE = 300.0
"""Seconds that a command may take."""
LOOK_SECONDS = 0.005
RANKS = 2


class Run:
    """One command from its start to its end.

    Args:
        command: what is started; it writes its job folder to `folder`.
        folder: must not exist.
    """

    def __init__(self, command: list[str], folder: Path) -> None:
        self._lines = folder / "metrics.jsonl"
        log = folder.with_suffix(".log")
        begun = time.time()
        with log.open("wb") as output:
            # a session of its own, so that nothing of it outlives the bench
            child = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            self.at_first = self._first_step(child)
            """Unix time of the first step."""
            if self.at_first is None or child.wait(PATIENCE) != 0:
                raise SystemExit(f"{' '.join(command)} failed:\n{log.read_text()}")
            self.first, self.end = self.at_first - begun, time.time() - begun
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGTERM)
                child.wait(30)

    def _first_step(self, child: subprocess.Popen[bytes]) -> float | None:
        until = time.time() + PATIENCE
        while time.time() < until:
            ended = child.poll() is not None
            if self._lines.exists() and b"\n" in self._lines.read_bytes():
                now = time.time()
                if metrics.steps(metrics.read(self._lines)):
                    return now
            if ended:
                return None
            time.sleep(LOOK_SECONDS)
        return None


class Sides:
    """Starts both sides, each time in a folder of its own."""

    def __init__(self, root: Path, fleet: EmbeddedFleet, steps: int) -> None:
        self._root, self._fleet, self._steps = root, fleet, steps
        self._count = 0

    def ours(self) -> dict[str, float]:
        """One job on the fleet; seconds."""
        folder = self._folder("ours")
        fleet = ["--fleet", str(self._fleet.fleet_file), "--ranks-per-node", "1"]
        program = [sys.executable, "-m", "llamaforge", "train"]
        run = Run([*program, *self._job(folder, batch=RANKS * 2), *fleet], folder)
        assert run.at_first is not None
        queued = asyncio.run(self._submitted(folder.name))
        return {"first": run.first, "end": run.end, "from_queue": run.at_first - queued}

    def peer(self) -> dict[str, float]:
        """One torchrun; seconds."""
        folder = self._folder("peer")
        program = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        script = [f"--nproc_per_node={RANKS}", str(ROOT / "distributed_train.py")]
        run = Run([*program, *script, *self._job(folder, batch=2)], folder)
        return {"first": run.first, "end": run.end}

    def _job(self, folder: Path, batch: int) -> list[str]:
        """Options of the training; `batch` counts rows per step, under torchrun per process."""
        data = ["--model", "tiny", "--dataset", str(DATA), "--max-steps", str(self._steps)]
        where = ["--output-dir", str(folder), "--name", folder.name]
        return [*data, "--batch-size", str(batch), *where]

    def _folder(self, side: str) -> Path:
        self._count += 1
        return self._root / f"{side}-{self._count}"

    async def _submitted(self, job: str) -> float:
        """Unix time at which the coordinator had a job."""
        async with self._fleet.client() as client:
            return (await client.job(job)).submitted


def main() -> None:
    """Measures both and prints the line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    ours: list[dict[str, float]] = []
    peer: list[dict[str, float]] = []
    with (
        tempfile.TemporaryDirectory(prefix="llamaforge-launch-") as root,
        EmbeddedFleet(workers=RANKS, registered=False, ranks=1) as fleet,
    ):
        sides = Sides(Path(root), fleet, options.steps)
        print(f"warm: {sides.ours()}", flush=True)
        for _ in range(options.turns):
            ours.append(sides.ours())
            peer.append(sides.peer())
            print(f"ours: {ours[-1]} torchrun: {peer[-1]}", flush=True)
    detail = {
        "from_queue_s": median(ours, "from_queue"),
        "to_end_s": median(ours, "end"),
        "peer_to_end_s": median(peer, "end"),
        "turns": options.turns,
    }
    mine, theirs = median(ours, "first"), median(peer, "first")
    said = {"name": "launch", "ours": mine, "peer": theirs, "ratio": round(mine / theirs, 3)}
    print(json.dumps({**said, "unit": "s to the first committed step", "detail": detail}))


def median(runs: list[dict[str, float]], name: str) -> float:
    """The median of one figure, rounded."""
    return round(statistics.median(run[name] for run in runs), 2)


if __name__ == "__main__":
    main()
