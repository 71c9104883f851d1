"""Images: read-only layers that a node's disk begins with."""

from __future__ import annotations

from pathlib import Path

from lab.errors import LabError


def layers(image: str, _base: Path) -> list[Path]:
    """The layers of an image above the stranger's root, topmost first."""
    if image == "bare":
        return []
    if image == "installed":
        raise LabError("the installed image is not built yet")
    raise LabError(f"there is no image {image!r}: use 'bare' or 'installed'")
