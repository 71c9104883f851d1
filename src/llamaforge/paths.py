"""Where things live on a machine: state, cache, and what the package ships.

State is what must survive (the running fleet's address, jobs); cache is what can be made again
(blobs, digests, tokenised rows). Both follow the XDG base directory specification and can be
given on the command line (`--state-dir`, `--cache-dir`), so that several fleets can share a
machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llamaforge.errors import Occupied


def state_dir() -> Path:
    """The per-user folder for state: `$XDG_STATE_HOME/llamaforge`."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "llamaforge"


def cache_dir() -> Path:
    """The per-user folder for what can be made again: `$XDG_CACHE_HOME/llamaforge`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "llamaforge"


@contextmanager
def writing_state(folder: Path) -> Iterator[None]:
    """Around writes to a state folder: one that can't be written is a mistake, not a bug.

    Raises:
        Occupied: names the folder and why.
    """
    try:
        yield
    except OSError as why:
        raise Occupied(
            f"the state folder {folder} can't be written: {why.strerror or why}",
            hint="make room or give it to this user, or choose another one with --state-dir",
        ) from why


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
