"""Disks: overlays of the box's root. A node's own layer is a plain folder that outlives power cuts.

What a "power cut" here can't show: the page cache belongs to the host and survives, so a write that
was never synced is not lost. Torn writes are `tests/bundle/powercut.py`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab import stranger
from lab.commands import call
from lab.errors import LabError
from lab.ledger import Ledger


def scratch_of(name: str) -> Path:
    """The folder of a lab's disks."""
    return Path(f"/var/tmp/llamaforge-lab-{name}")


def require_one_filesystem() -> None:
    """Refuse boxes whose root is in parts: an overlay sees one file system, not those in it."""
    whole = Path("/").stat().st_dev
    apart = [name for name in ("/usr", "/etc", "/var") if Path(name).stat().st_dev != whole]
    if apart:
        raise LabError(
            f"{apart[0]} is a file system of its own; nodes here are overlays of / alone"
        )


class Base:
    """The box's root as a stranger's, read-only: what all nodes of a lab have below them."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.root = folder / "stranger"
        self._layer = folder / "hiding"
        self._ledger = ledger

    def make(self) -> None:
        """Mount it.

        An overlay can't have two layers of which one lies in the other, so this is an overlay
        by itself, and a node's disk is another one over it.
        """
        require_one_filesystem()
        for path in (self._layer, self.root):
            path.mkdir()
            self._ledger.note("mount", path)
        call("mount", "-t", "tmpfs", "-o", "size=16m,mode=755", "lab", self._layer)
        stranger.fill(self._layer)
        call("mount", "-t", "overlay", "-o", f"ro,lowerdir={self._layer}:/", "lab", self.root)


class Disk:
    """One node's disk: a writable layer over an image."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.folder = folder
        self.root = folder / "root"
        self._ledger = ledger

    def make(self, layers: Sequence[Path], seed: dict[str, str]) -> None:
        """Mount an empty disk over read-only layers, topmost first, and write the first files."""
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir(parents=True)
        self._ledger.note("mount", self.root)
        lower = ":".join(str(layer) for layer in layers)
        places = f"lowerdir={lower},upperdir={self.folder / 'upper'},workdir={self.folder / 'work'}"
        call("mount", "-t", "overlay", "-o", places, "lab", self.root)
        for name, text in seed.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
