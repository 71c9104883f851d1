"""Runs real ranks as a worker would: processes with a control pipe, without a worker.

    run_ranks(job, bundle, work, ranks=3)

Shares between ranks follow measured speeds, so two runs never share work alike; `speeds` makes
them as unequal as a test wants.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from llamaforge.data.rows import Chat, Turn, encode
from llamaforge.spec import shares
from llamaforge.spec.job import Job
from llamaforge.spec.ranks import (
    Assignment,
    Failed,
    Finished,
    FromRank,
    Metric,
    Note,
    Rendezvous,
    Stop,
    StoreReady,
)

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["llamaforge.train.rank", "llamaforge.train.run", "transformers.models.llama.modeling_llama"]
)


def _rank(arguments: list[str], control: socket.socket, log: str, speeds: list[float]) -> None:
    """A rank's process: forked from one that has imported the engine, which saves seconds."""
    from llamaforge.train import rank

    with Path(log).open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if speeds:
        shares.Speeds.__call__ = lambda _: list(speeds)  # type: ignore[method-assign]
    sys.argv = ["rank", *arguments, "--control-fd", str(control.detach())]
    sys.exit(rank.main())


@dataclass
class Ended:
    """What the ranks said and how they ended."""

    codes: list[int]
    proof: dict[str, Any] = field(default_factory=dict)
    stopped: bool = False
    metrics: list[dict[str, Any]] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    failures: list[Failed] = field(default_factory=list)
    output: str = ""

    @property
    def losses(self) -> list[float]:
        """The loss of every step."""
        return [line["loss"] for line in self.metrics if "loss" in line]


def run_ranks(
    job: Job,
    bundle: Path,
    work: Path,
    *,
    ranks: int = 1,
    speeds: list[float] | None = None,
    generation: int = 1,
    stop_at: int | None = None,
) -> Ended:
    """Trains a job with `ranks` processes on this machine and waits for their end.

    Args:
        job: what to train.
        bundle: its files, laid out.
        work: where checkpoints and artifacts go.
        ranks: how many processes.
        speeds: fixed speeds, for shares as unequal as these.
        generation: its number.
        stop_at: after this step, ask all ranks to stop.
    """
    work.mkdir(parents=True, exist_ok=True)
    ended = Ended(codes=[])
    processes, pipes, logs = [], [], []
    for rank in range(ranks):
        ours, theirs = socket.socketpair()
        where = work / f"assignment-{rank}.json"
        where.write_bytes(
            msgspec.json.encode(
                Assignment(
                    job=job,
                    generation=generation,
                    rank=rank,
                    world_size=ranks,
                    local_rank=rank,
                    node=f"node{rank}",
                    address="127.0.0.1",
                    bundle=str(bundle),
                    workdir=str(work),
                    cache_dir=str(work / "cache"),
                )
            )
        )
        logs.append(work / f"rank-{rank}.log")
        process = _context.Process(
            target=_rank,
            args=(["--assignment", str(where)], theirs, str(logs[-1]), speeds or []),
        )
        process.start()
        processes.append(process)
        theirs.close()
        pipes.append(ours)
    listeners = [
        threading.Thread(target=_listen, args=(pipe, pipes, ended, stop_at)) for pipe in pipes
    ]
    for thread in listeners:
        thread.start()
    for process in processes:
        process.join(timeout=240)
        process.kill()
    for thread in listeners:
        thread.join()
    ended.codes = [process.exitcode for process in processes]
    ended.output = "".join(log.read_text() for log in logs)
    return ended


def _listen(
    pipe: socket.socket, pipes: list[socket.socket], ended: Ended, stop_at: int | None
) -> None:
    decoder = msgspec.json.Decoder(FromRank)
    with pipe, pipe.makefile("rb") as lines:
        for line in lines:
            report = decoder.decode(line)
            if isinstance(report, StoreReady):
                for other in pipes:
                    _say(other, Rendezvous(host=report.host, port=report.port))
            elif isinstance(report, Metric):
                ended.metrics.append(report.line)
                if report.line["step"] == stop_at:
                    for other in pipes:
                        _say(other, Stop(reason="test"))
            elif isinstance(report, Note):
                ended.notes.append(report)
            elif isinstance(report, Finished):
                ended.proof, ended.stopped = report.proof, report.stopped
            elif isinstance(report, Failed):
                ended.failures.append(report)


def _say(pipe: socket.socket, message: Rendezvous | Stop) -> None:
    pipe.sendall(msgspec.json.encode(message) + b"\n")


def lay_out(folder: Path, model: Path, rows: list[dict[str, Any]], heldout: int = 0) -> Path:
    """A bundle folder made by hand: canonical rows of instruction and output, and a model."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    lines = [
        encode(
            Chat(
                line=number,
                turns=(
                    Turn(role="user", content=row["instruction"]),
                    Turn(role="assistant", content=row["output"]),
                ),
            )
        )
        for number, row in enumerate(rows, 1)
    ]
    (folder / "data" / "train.jsonl").write_bytes(b"".join(lines[heldout:]))
    if heldout:
        (folder / "data" / "heldout.jsonl").write_bytes(b"".join(lines[:heldout]))
    (folder / "model").symlink_to(model)
    return folder
