"""The name under which ps, top and htop show a rank, so that `ps aux | grep torch` finds it."""

from __future__ import annotations

import os


def show(job: str, rank: int, world_size: int) -> None:
    """Names this process after its job and rank.

    The name takes no more room than the command line had, so that the environment can still be
    read in /proc, where administrators look for it.
    """
    from setproctitle import setproctitle

    os.environ["SPT_NOENV"] = "1"  # read at the first call
    setproctitle(f"llamaforge: torch rank {rank} of {world_size}, job {job}")
    del os.environ["SPT_NOENV"]
