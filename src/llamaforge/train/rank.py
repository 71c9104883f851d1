"""One training process of a fleet job, started by a worker.

    python -m llamaforge.train.rank --assignment FILE --control-fd N

The file holds a `spec.ranks.Assignment`; the descriptor is one end of a socket pair to the worker.
Exit codes: 0 done or stopped, 1 failed, 2 failed because of what was asked for.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import signal
import socket
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from llamaforge.errors import LlamaForgeError, UserError
from llamaforge.spec.beat import Phase
from llamaforge.spec.ranks import Assignment, Failed, Finished, StoreReady
from llamaforge.train import beat, title
from llamaforge.train.exact import threads

MET = "met"
"""The key that counts the ranks that have come."""


def main() -> int:
    """Runs the rank that the command line names."""
    parser = argparse.ArgumentParser(prog="llamaforge.train.rank")
    parser.add_argument("--assignment", type=Path, required=True)
    parser.add_argument("--control-fd", type=int, required=True)
    options = parser.parse_args()
    assignment = msgspec.json.decode(options.assignment.read_bytes(), type=Assignment)
    _show_oneself(options.assignment)
    title.show(assignment.job.id, assignment.rank, assignment.world_size)
    threads.sanitise_environment()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from llamaforge.train.control import Control

    control = Control(socket.socket(fileno=options.control_fd))
    signal.signal(signal.SIGTERM, lambda *_: control.ask_to_stop("SIGTERM"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _train(assignment, control)
    except LlamaForgeError as error:
        _report(control, error, type(error).__name__)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the worker must hear of a bug too
        traceback.print_exc()
        _report(control, LlamaForgeError(f"{type(error).__name__}: {error}"), type(error).__name__)
        return 1
    return 0


def _show_oneself(assignment: Path) -> None:
    """Lets the worker see where this process is, also when it hangs; before anything can.

    Beside its assignment it keeps `rank-N.beat`, and `rank-N.stacks`, which gets all threads'
    stacks at each SIGUSR2.
    """
    try:
        beat.keep(assignment.with_suffix(".beat"))
        stacks = assignment.with_suffix(".stacks").open("ab", buffering=0)
    except OSError as why:
        print(f"where this rank stands can't be told: {why}", file=sys.stderr, flush=True)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        return
    faulthandler.register(signal.SIGUSR2, file=stacks, all_threads=True)


def _train(assignment: Assignment, control: object) -> None:
    """Joins the generation and trains; imports torch only now, in a clean environment."""
    beat.now(Phase.STARTS)
    from torch.distributed import PrefixStore, TCPStore

    from llamaforge.train.control import Control, ControlReporter, ProgressReporter
    from llamaforge.train.group import Group
    from llamaforge.train.place import Folders, Place
    from llamaforge.train.run import train

    assert isinstance(control, Control)
    first = assignment.rank == 0
    beat.now(Phase.MEETS)
    if first:
        store = TCPStore(assignment.address, 0, None, is_master=True, wait_for_workers=False)
        control.say(StoreReady(host=assignment.address, port=store.port))
    else:
        with beat.waiting():
            there = control.rendezvous()
        store = TCPStore(there.host, there.port, None, is_master=False, wait_for_workers=False)
    room = PrefixStore(f"{assignment.job.id}/{assignment.generation}", store)
    with beat.waiting():
        _meet(room, assignment, control)
        group = Group.form(
            room,
            rank=assignment.rank,
            world_size=assignment.world_size,
            address=assignment.address,
            timeout=timedelta(seconds=assignment.network_timeout),
        )
    bundle, workdir = Path(assignment.bundle), Path(assignment.workdir)
    resume = bundle / "resume"
    outcome = train(
        assignment.job,
        place=Place(
            generation=assignment.generation,
            rank=assignment.rank,
            world_size=assignment.world_size,
            local_rank=assignment.local_rank,
            node=assignment.node,
            address=assignment.address,
        ),
        folders=Folders(
            bundle=bundle,
            checkpoints=workdir / "checkpoints",
            artifacts=workdir / "artifacts",
            cache=Path(assignment.cache_dir),
            resume=resume if resume.is_dir() else None,
        ),
        group=group,
        reporter=ControlReporter(control) if first else ProgressReporter(control),
        stop=control.stop,
    )
    if first:
        control.say(
            Finished(
                artifacts=str(workdir / "artifacts"), proof=outcome.proof, stopped=outcome.stopped
            )
        )


def _meet(store: Any, assignment: Assignment, control: object) -> None:
    """Waits for all ranks, as long as their nodes take to fetch the model.

    Only then does the patience of the process group begin, which must be short.

    Raises:
        FleetError: told to leave before all were there.
        GroupBroken: rank 0's store is gone.
    """
    from llamaforge.train.control import LOOK_SECONDS, Control
    from llamaforge.train.group import GroupBroken

    assert isinstance(control, Control)
    try:
        there = store.add(MET, 1)
        while there < assignment.world_size:
            control.leave_if_asked()
            time.sleep(LOOK_SECONDS)
            there = store.add(MET, 0)
    except RuntimeError as error:
        why = f"rank {assignment.rank} could not meet the other ranks: {error}"
        raise GroupBroken(why) from error


def _report(control: object, error: LlamaForgeError, kind: str) -> None:
    from llamaforge.train.control import Control

    assert isinstance(control, Control)
    print(f"error: {error}", file=sys.stderr, flush=True)
    control.say(
        Failed(
            kind=kind,
            message=error.message,
            hint=error.hint,
            user_error=isinstance(error, UserError),
        )
    )


if __name__ == "__main__":
    sys.exit(main())
