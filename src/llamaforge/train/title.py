"""The name under which ps, top and htop show a rank, so that `ps aux | grep torch` finds it."""

from __future__ import annotations

from setproctitle import setproctitle


def show(job: str, rank: int, world_size: int) -> None:
    """Names this process after its job and rank."""
    setproctitle(f"llamaforge: torch rank {rank} of {world_size}, job {job}")
