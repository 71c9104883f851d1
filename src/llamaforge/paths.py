"""Where things live on a machine: state, cache, and what the package ships.

State is what must survive (the running fleet's address, jobs); cache is what can be made again
(blobs, digests, tokenised rows). Both follow the XDG base directory specification and can be
given on the command line (`--state-dir`, `--cache-dir`), so that several fleets can share a
machine.
"""

from __future__ import annotations

import os
from pathlib import Path


def state_dir() -> Path:
    """The per-user folder for state: `$XDG_STATE_HOME/llamaforge`."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "llamaforge"


def cache_dir() -> Path:
    """The per-user folder for what can be made again: `$XDG_CACHE_HOME/llamaforge`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "llamaforge"


def shipped(name: str) -> Path | None:
    """Finds a folder that the project ships, such as `tiny-llama`.

    Looks inside the installed package first, then in `examples/models` of a source checkout.

    Returns:
        The folder, or None when this installation does not carry it.
    """
    package = Path(__file__).resolve().parent
    for candidate in (
        package / "shipped" / name,
        package.parents[1] / "examples" / "models" / name,
    ):
        if candidate.is_dir():
            return candidate
    return None
