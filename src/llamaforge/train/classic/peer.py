"""A worker's side of a classic job, started by the worker's torchrun.

    torchrun … -m llamaforge.train.classic.peer --name NODE --cache-dir DIR --folder DIR

It knows nothing about the job; arguments, data and model come from rank 0. It leaves two files in
DIR for the worker (N: its place on this node): rank-N.pid at its start, so that it can be asked to
leave, and report-N.json about how it ended.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import msgspec

from llamaforge.errors import LlamaForgeError
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
    options = parser.parse_args()
    leave = Leave()
    leave.listen()
    try:
        launch = Launch.from_environment(os.environ)
    except LlamaForgeError as error:
        return show(error)
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
        )
        ended = attempt(here, None, leave)
    report = options.folder / f"report-{launch.local_rank}.json"
    report.write_bytes(msgspec.json.encode(ended))
    return exit_code(ended)


if __name__ == "__main__":
    sys.exit(main())
