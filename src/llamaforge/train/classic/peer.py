"""A worker's side of a classic job, started by the worker's torchrun.

    torchrun … -m llamaforge.train.classic.peer --name NODE --cache-dir DIR --folder DIR

It knows nothing about the job; arguments, data and model come from rank 0. What it has in common
with the worker are files in DIR (N: its place on this node): it writes its output into the FIFO
output-N, and leaves rank-N.pid at its start, so that it can be asked to leave, progress-N.json
while it trains, and report-N.json about how it ended.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import msgspec

from llamaforge.errors import LlamaForgeError
from llamaforge.spec.fleet import NETWORK_TIMEOUT
from llamaforge.train import title
from llamaforge.train.classic.entry import prepare_environment, show
from llamaforge.train.classic.launch import Launch
from llamaforge.train.classic.leave import Leave, tie_to_parent


def main() -> int:
    """Runs one peer to the end of the job."""
    tie_to_parent()
    parser = argparse.ArgumentParser(prog="llamaforge.train.classic.peer")
    parser.add_argument("--name", required=True, help="this node's name")
    parser.add_argument("--cache-dir", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for this job's files")
    parser.add_argument("--cores", type=int, help="cores to use; by default all that it may")
    parser.add_argument("--address", help="where others reach it; by default by route")
    parser.add_argument("--network-timeout", type=float, default=NETWORK_TIMEOUT, metavar="SECONDS")
    options = parser.parse_args()
    leave = Leave()
    leave.listen()
    try:
        launch = Launch.from_environment(os.environ)
    except LlamaForgeError as error:
        return show(error)
    _speak_into(options.folder / f"output-{launch.local_rank}")
    title.show("(joining)", launch.rank, launch.world_size)
    (options.folder / f"rank-{launch.local_rank}.pid").write_text(str(os.getpid()))
    prepare_environment()
    from llamaforge.train.classic.attempt import Here, attempt, exit_code

    with tempfile.TemporaryDirectory(prefix="rank-", dir=options.folder) as folder:
        here = Here(
            launch=launch,
            node_name=options.name,
            cache=options.cache_dir,
            folder=Path(folder),
            cores=options.cores,
            address=options.address,
            network_timeout=options.network_timeout,
            progress=options.folder / f"progress-{launch.local_rank}.json",
        )
        ended = attempt(here, None, leave)
    report = options.folder / f"report-{launch.local_rank}.json"
    report.write_bytes(msgspec.json.encode(ended))
    return exit_code(ended)


def _speak_into(fifo: Path) -> None:
    """Gives standard output and error to the worker, which so knows which rank said what."""
    if not fifo.is_fifo():
        return
    handle = os.open(fifo, os.O_WRONLY)
    for standard in (1, 2):
        os.dup2(handle, standard)
    os.close(handle)


if __name__ == "__main__":
    sys.exit(main())
