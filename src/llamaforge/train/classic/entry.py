"""What `distributed_train.py` runs: the coordinator's side of a classic job, or a lone machine.

Rank 0 reads the options before torch is imported, so that a mistake is answered at once. All other
processes on that node run the same file and act as peers.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from llamaforge import paths
from llamaforge.errors import LlamaForgeError, UserError
from llamaforge.spec.fleet import network_timeout
from llamaforge.spec.job import JobSpec
from llamaforge.train.classic.launch import Launch
from llamaforge.train.classic.leave import Leave, tie_to_parent
from llamaforge.train.exact.threads import sanitise_environment

RESOLVER = "timeout:1 attempts:2"
"""torch looks up the name behind every address that it connects to, only to log it. Without
reverse DNS that takes tens of seconds, unless the resolver is told to give up soon."""


def main(read_spec: Callable[[], JobSpec]) -> int:
    """Takes part in a classic job.

    Args:
        read_spec: reads what was asked for; called on rank 0 only. It raises `LlamaForgeError`
            for a mistake and `SystemExit` when help was asked for.

    Returns:
        The exit code: 0 done or left early after a checkpoint, 2 a mistake in what was asked for,
        1 anything else.
    """
    leave = Leave()
    leave.listen()
    try:
        launch = Launch.from_environment(os.environ)
    except LlamaForgeError as error:
        return show(error)
    if launch.store_host:
        tie_to_parent()
    spec = None
    if launch.rank == 0:
        try:
            spec = read_spec()
        except LlamaForgeError as error:
            code = show(error)
            _call_off(launch, error)
            return code
        except SystemExit:
            _call_off(launch, UserError("the first node was only asked for help"))
            raise
    return _attempt(launch, spec, leave)


def _attempt(launch: Launch, spec: JobSpec | None, leave: Leave) -> int:
    try:
        timeout = network_timeout(os.environ)
    except LlamaForgeError as error:
        _call_off(launch, error)
        return show(error)
    prepare_environment()
    from llamaforge.train.classic.attempt import Here, attempt, exit_code

    with tempfile.TemporaryDirectory(prefix="llamaforge-") as folder:
        here = Here(
            launch=launch,
            node_name=socket.gethostname().partition(".")[0] or "first",
            cache=paths.cache_dir(),
            folder=Path(folder),
            network_timeout=timeout,
        )
        return exit_code(attempt(here, spec, leave))


def _call_off(launch: Launch, error: LlamaForgeError) -> None:
    """Tells the processes that wait for rank 0 that there is nothing to do, and why."""
    if launch.world_size > 1:
        prepare_environment()
        from llamaforge.train.classic.exchange import call_off

        call_off(launch, error)


def prepare_environment() -> None:
    """Call it before torch is imported: what stands in the environment must not decide results."""
    sanitise_environment()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RES_OPTIONS"] = f"{os.environ.get('RES_OPTIONS', '')} {RESOLVER}".strip()


def show(error: LlamaForgeError) -> int:
    """Prints an error as a person should see it; returns its exit code."""
    print(f"error: {error}", file=sys.stderr, flush=True)
    return error.exit_code
