"""A job that runs somebody's own torch.distributed script, as torchrun would.

`llamaforge run -- train.py --epochs 3` makes one. Its folder travels as a bundle below `code/`; the
ranks get the environment that torchrun gives and nothing of ours.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from llamaforge.spec.wishes import Wishes

CODE = "code"
"""Folder of a bundle below which the script's folder travels."""


class ScriptJob(msgspec.Struct, frozen=True, kw_only=True):
    """A script and how it is run."""

    id: str
    """Unique name."""
    command: tuple[str, ...]
    """The script (a path inside `code/`, or `-m` and a module) and its arguments."""
    environment: dict[str, str] = {}
    """Added to the ranks' environment."""
    executable: tuple[str, ...] = ()
    """Files below `code/` that may be run as programs."""
    links: dict[str, str] = {}
    """Symbolic links below `code/` and what they point to, which is inside it as well."""
    wishes: Wishes = Wishes()
    max_restarts: Annotated[int, Meta(ge=0, le=2**31)] = 3
    """How often all ranks are started again after one has failed."""
    version: str = ""
    """LlamaForge version that made it."""
    created: float = 0.0
    """Unix time in seconds."""
