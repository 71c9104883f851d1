"""A rank without torch: speaks the worker's protocol and misbehaves as its job's name says.

The job's `spec.dataset` is a script: words such as `steps=5`, `pace=0.05`, `checkpoint=2`,
`fail=1` (that rank reports an error), `user_error=0`, `crash=1` (exit code 3), `kill=1` (SIGKILL
of itself), `at=7` (at which step it misbehaves; 2 by default), `only=1` (in which generation; in
all by default), `hang` (never ends by itself), `stubborn` (ignores SIGTERM), `say=TEXT`, `chatter`
(a line a step), `sleep=1` (that rank stands still), `freeze=1` (it stops itself with SIGSTOP). It
goes on from a checkpoint, tells its progress and leaves its pulse in a file as a real rank does.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import msgspec

from llamaforge.bundle import checkpoints
from llamaforge.spec.beat import Phase
from llamaforge.spec.ranks import (
    Assignment,
    CheckpointDone,
    Failed,
    Finished,
    Metric,
    Note,
    Progress,
    Rendezvous,
    Stop,
    StoreReady,
    ToRank,
)
from llamaforge.train import beat


class Fake:
    def __init__(self, assignment: Assignment, pipe: socket.socket) -> None:
        self.place = assignment
        self.pipe = pipe
        self.script = dict(word.partition("=")[::2] for word in assignment.job.spec.dataset.split())
        self.told = threading.Event()
        self.where: Rendezvous | None = None
        self.stop: str | None = None
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self) -> None:
        with self.pipe.makefile("rb") as lines:
            for line in lines:
                message = msgspec.json.decode(line, type=ToRank)
                if isinstance(message, Stop):
                    self.stop = message.reason
                else:
                    self.where = message
                    self.told.set()

    def say(self, report) -> None:
        self.pipe.sendall(msgspec.json.encode(report) + b"\n")

    def is_me(self, word: str) -> bool:
        return self.script.get(word) == str(self.place.rank)

    def is_my_turn(self) -> bool:
        return self.script.get("only", str(self.place.generation)) == str(self.place.generation)

    def first_step(self) -> int:
        state = Path(self.place.bundle) / "resume" / "state.json"
        return msgspec.json.decode(state.read_bytes())["step"] if state.exists() else 0

    def meet(self) -> list[socket.socket]:
        if self.place.rank == 0:
            server = socket.create_server((self.place.address, 0))
            self.say(StoreReady(host=self.place.address, port=server.getsockname()[1]))
            return [server.accept()[0] for _ in range(self.place.world_size - 1)]
        assert self.told.wait(60)
        assert self.where
        return [socket.create_connection((self.where.host, self.where.port), 30)]

    def agree(self, peers: list[socket.socket], more: bool) -> bool:
        """One collective: every rank says whether it goes on; all do only if each one does."""
        with beat.waiting():
            return self.agreed(peers, b"y" if more else b"n")

    def agreed(self, peers: list[socket.socket], mine: bytes) -> bool:
        if self.place.rank != 0:
            peers[0].sendall(mine)
            verdict = peers[0].recv(1)
        else:
            votes = [mine, *(peer.recv(1) for peer in peers)]
            verdict = b"" if b"" in votes else min(votes)
            for peer in peers if verdict else ():
                peer.sendall(verdict)
        if not verdict:
            raise ConnectionError("Connection closed by peer")
        return verdict == b"y"

    def run(self) -> int:
        print(f"rank {self.place.rank} of {self.place.world_size}: {self.script.get('say', '')}")
        assert (Path(self.place.bundle) / "data/train.jsonl").read_text()
        peers = self.meet()
        if self.place.rank == 0:
            self.say(Note(kind="guarantee", text="same numbers"))
        step, steps = self.first_step(), int(self.script.get("steps", 3))
        try:
            while self.agree(peers, self.stop is None and (step < steps or "hang" in self.script)):
                step += 1
                beat.now(Phase.SLICE)
                time.sleep(float(self.script.get("pace", 0)))
                if step == int(self.script.get("at", 2)) and self.is_my_turn():
                    self.misbehave()
                self.progress(step, steps)
                if "chatter" in self.script:
                    print(f"rank {self.place.rank} did step {step}", flush=True)
                if self.place.rank == 0:
                    self.step_done(step)
        except ConnectionError as why:
            self.say(Failed(kind="RuntimeError", message=str(why)))
            return 1
        if self.place.rank == 0:
            self.finish(step)
        return 0

    def progress(self, step: int, steps: int) -> None:
        beat.committed(step)
        place = self.place
        self.say(
            Progress(
                job=place.job.id,
                generation=place.generation,
                rank=place.rank,
                world_size=place.world_size,
                nodes=1,
                step=step,
                total_steps=steps,
            )
        )

    def misbehave(self) -> None:
        if self.is_me("sleep"):
            self.stand_still()
        if self.is_me("freeze"):
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.is_me("fail"):
            self.say(Failed(kind="NumberError", message="loss is NaN at step 2", hint="lower it"))
            sys.exit(1)
        if self.is_me("user_error"):
            self.say(Failed(kind="DataError", message="row 7 is empty", user_error=True))
            sys.exit(2)
        if self.is_me("crash"):
            print("about to crash", file=sys.stderr, flush=True)
            os._exit(3)
        if self.is_me("kill"):
            os.kill(os.getpid(), signal.SIGKILL)

    def stand_still(self) -> None:
        time.sleep(600)

    def step_done(self, step: int) -> None:
        shares = {self.place.node: 1}
        self.say(Metric(line={"step": step, "loss": 1 / step, "shares": shares}))
        if step == int(self.script.get("checkpoint", -1)):
            self.checkpoint(step)

    def checkpoint(self, step: int) -> None:
        with checkpoints.begin(Path(self.place.workdir) / "checkpoints", step) as partial:
            (partial.path / "trained.safetensors").write_bytes(b"x" * 100_000)
            path = partial.commit({"job": msgspec.to_builtins(self.place.job)}, keep=2)
        self.say(CheckpointDone(step=step, path=str(path)))

    def finish(self, step: int) -> None:
        if self.stop is not None:
            self.checkpoint(step)
        artifacts = Path(self.place.workdir) / "artifacts"
        (artifacts / "sub").mkdir(parents=True)
        (artifacts / "adapter_model.safetensors").write_bytes(b"adapter")
        (artifacts / "sub" / "deep.txt").write_text("deep")
        self.say(
            Finished(artifacts=str(artifacts), proof={"steps": step}, stopped=self.stop is not None)
        )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--assignment", type=Path)
    parser.add_argument("--control-fd", type=int)
    options = parser.parse_args()
    beat.keep(options.assignment.with_suffix(".beat"))
    stacks = options.assignment.with_suffix(".stacks").open("ab", buffering=0)
    faulthandler.register(signal.SIGUSR2, file=stacks, all_threads=True)
    assignment = msgspec.json.decode(options.assignment.read_bytes(), type=Assignment)
    fake = Fake(assignment, socket.socket(fileno=options.control_fd))
    if "stubborn" in fake.script:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return fake.run()


if __name__ == "__main__":
    sys.exit(main())
