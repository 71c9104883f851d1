"""Unit files and scripts that the package carries, from the wheel or from a source checkout."""

from __future__ import annotations

from pathlib import Path

from llamaforge.errors import UserError


def folder() -> Path:
    """The folder `packaging`.

    Raises:
        UserError: this installation does not carry it.
    """
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "shipped" / "packaging", package.parents[1] / "packaging"):
        if candidate.is_dir():
            return candidate
    raise UserError(
        "this installation of LlamaForge has no unit files",
        hint="install it from a clone with ./install.sh, or with pip from a built wheel",
    )


def text(name: str) -> str:
    """The text of one file: `text("systemd/llamaforge-worker.service")`."""
    return (folder() / name).read_text(encoding="utf-8")
