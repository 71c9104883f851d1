"""The literal command of the guide, typed on the coordinator's host."""

from __future__ import annotations

import json
import re
import subprocess

from lab import Node

PYTHON = "/opt/llamaforge/current/bin/python3"
DATA = "examples/datasets/alpaca_1k.jsonl"


def line(master: Node, *options: str, nproc: int = 1, nnodes: int = 2) -> list[str]:
    """The command, as an argument list for `bash -c`."""
    words = [
        *("cd /srv/llamaforge && exec", PYTHON, "-m torch.distributed.run"),
        *(f"--nproc_per_node={nproc}", f"--nnodes={nnodes}", "--node_rank=0"),
        *(f"--master_addr={master.address}", "--master_port=29500", "distributed_train.py"),
        *("--model tiny", f"--dataset {DATA}", "--epochs 1", "--batch-size 2", *options),
    ]
    return ["bash", "-c", " ".join(words)]


def train(
    master: Node, *options: str, nproc: int = 1, nnodes: int = 2, seconds: float = 240
) -> str:
    """Trains to the end and returns what was printed."""
    done = master.run(*line(master, *options, nproc=nproc, nnodes=nnodes), timeout=seconds)
    return done.stdout + done.stderr


def begin(master: Node, *options: str, nproc: int = 1, nnodes: int = 2) -> subprocess.Popen[str]:
    """Starts training; the caller waits, or does something to the machines."""
    return master.spawn(*line(master, *options, nproc=nproc, nnodes=nnodes))


def proof(master: Node, folder: str) -> dict[str, object]:
    """proof.json of a job's folder."""
    read: dict[str, object] = json.loads(master.read(f"{folder}/proof.json"))
    return read


def steps(master: Node, folder: str) -> int:
    """Steps that a running job has committed."""
    metrics = master.path(f"{folder}/metrics.jsonl")
    if not metrics.exists():
        return 0
    found = re.findall(r'"step": ?(\d+)', metrics.read_text())
    return int(found[-1]) if found else 0
