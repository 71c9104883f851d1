"""From what a person calls a model to its files: `tiny`, a local folder, or a hub name."""

from __future__ import annotations

import difflib
from pathlib import Path

from llamaforge import paths
from llamaforge.bundle import hub
from llamaforge.bundle.model_folder import Found, check
from llamaforge.errors import ModelError

__all__ = ["Found", "find_model"]

SHIPPED = {"tiny": "tiny-llama"}
"""Names of models that come with LlamaForge, and their folders."""


def find_model(name: str, revision: str | None = None) -> Found:
    """Finds a model's folder and the files in it that a job needs.

    Args:
        name: `tiny` (shipped), a local folder, or a hub name. A folder wins over a hub name.
        revision: branch, tag or commit of a hub model.

    Raises:
        ModelError: it is missing, incomplete, gated or in a format that can run code; says what to
            do next.
    """
    local = Path(name).expanduser()
    if name in SHIPPED and not local.is_dir():
        return _shipped(name)
    if local.is_dir():
        return check(local.resolve(), name=local.resolve().name)
    if local.exists():
        raise ModelError(
            f"{name} is a file, not a model's folder",
            hint=f"give the folder that holds config.json, such as {local.parent}",
        )
    if not hub.is_hub_name(name):
        raise ModelError(f"there is no folder {name!r}", hint=_meant(name) or "check the path")
    try:
        return hub.find(name, revision)
    except ModelError as error:
        meant = _meant(name)
        raise ModelError(
            error.message, hint=f"{meant}\n  {error.hint}" if meant else error.hint
        ) from error


def _shipped(name: str) -> Found:
    folder = paths.shipped(SHIPPED[name])
    if folder is None:
        raise ModelError(
            f"this installation does not carry the model {name!r}",
            hint="install LlamaForge from its wheel or a whole clone, or give a model's folder",
        )
    return check(folder, name=SHIPPED[name])


def _meant(name: str) -> str:
    """A folder, or a shipped model, whose name is close to what was written; or nothing."""
    path = Path(name).expanduser()
    try:
        beside = [entry.name for entry in path.parent.iterdir() if entry.is_dir()]
    except OSError:
        beside = []
    close = difflib.get_close_matches(path.name, beside, n=1)
    if close:
        return f"did you mean the folder {path.parent / close[0]}?"
    shipped = difflib.get_close_matches(name.lower(), SHIPPED, n=1)
    return f"did you mean {shipped[0]!r}, the shipped model?" if shipped else ""
