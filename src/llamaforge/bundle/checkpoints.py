"""Checkpoint folders that survive a power cut at any write: how they are made, found and kept.

A checkpoint is a folder `step-00000120` with the files its writer put there, `state.json` and,
written last, `manifest.json`: size and SHA-256 of every other file. It is made under another name
and renamed when all of it is on the medium, so a folder with the final name is complete, and a
damaged one is recognised by its digests. Nothing points at "the latest": `newest` verifies.

    with checkpoints.begin(root, step=120) as partial:
        save_file(tensors, partial.path / "trained.safetensors")
        path = partial.commit({"job": …}, keep=2)

Folders beside the checkpoints, never taken for one: `….partial` (being written), `….incoming`
(arriving from another machine), `….deleting`. `….replaced` is the former checkpoint of a step that
is committed again; it counts until its successor stands.
"""

from __future__ import annotations

import errno
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
from safetensors import SafetensorError

from llamaforge.bundle.disk import Disk
from llamaforge.bundle.seal import STATE, Checkpoint, seal, sync, verify
from llamaforge.errors import IntegrityError, LlamaForgeError

__all__ = [
    "Checkpoint",
    "Found",
    "Partial",
    "accept",
    "begin",
    "free_bytes_needed",
    "name",
    "newest",
    "receive",
    "verify",
]

_NAME = re.compile(r"step-([0-9]{8})")
_CANDIDATE = re.compile(r"step-([0-9]{8})(\.replaced)?")
_LEFTOVER = re.compile(r"step-[0-9]{8}\.(partial|deleting)")
_ARRIVING = re.compile(r"step-[0-9]{8}\.incoming")
_REAL = Disk()
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Found:
    """The newest checkpoint that verifies, and the newer ones that do not."""

    checkpoint: Checkpoint | None
    damaged: list[tuple[Path, str]] = field(default_factory=list)
    """Newest first: the folder, and what is wrong with it."""


class Partial:
    """A checkpoint being written. Use it in a `with`: without a commit it leaves nothing behind."""

    def __init__(self, root: Path, step: int, disk: Disk) -> None:
        self.path = root / f"{name(step)}.partial"
        """The folder to write files into; subfolders are fine."""
        self.step = step
        self._root = root
        self._disk = disk

    def __enter__(self) -> Partial:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Clears what was not committed; a full disk or a refused write becomes a clear error."""
        if self.path.exists():
            shutil.rmtree(self.path, ignore_errors=True)
        if isinstance(error, (OSError, SafetensorError)):
            raise _not_saved(self._root, self.step, error) from error

    def commit(self, state: Mapping[str, Any], keep: int) -> Path:
        """Makes the checkpoint durable and final, then deletes old ones.

        Args:
            state: JSON values for `state.json`; `step` is added.
            keep: verified checkpoints that stay, this one included.

        Returns:
            The checkpoint's folder.

        Raises:
            LlamaForgeError: the disk is full or refuses; earlier checkpoints are untouched.
        """
        disk = self._disk
        try:
            disk.write(self.path / STATE, msgspec.json.encode({**state, "step": self.step}))
            seal(self.path, self.step, disk)
            return _publish(self.path, self._root, self.step, keep, disk)
        except OSError as error:
            shutil.rmtree(self.path, ignore_errors=True)
            raise _not_saved(self._root, self.step, error) from error


def name(step: int) -> str:
    """The folder name of a step's checkpoint: `step-00000120`."""
    return f"step-{step:08d}"


def begin(root: Path, step: int, *, disk: Disk = _REAL) -> Partial:
    """Starts a checkpoint in `root`, after clearing what earlier crashes left there.

    Raises:
        LlamaForgeError: the folder can't be made.
    """
    partial = Partial(root, step, disk)
    try:
        _make_durably(root, disk)
        for folder in root.iterdir():
            if _LEFTOVER.fullmatch(folder.name):
                disk.remove(folder)
        disk.make_folder(partial.path)
    except OSError as error:
        raise _not_saved(root, step, error) from error
    return partial


def newest(root: Path) -> Found:
    """Finds the newest checkpoint that verifies, looking from the newest to the oldest."""
    damaged: list[tuple[Path, str]] = []
    for folder in _candidates(root):
        try:
            return Found(checkpoint=verify(folder), damaged=damaged)
        except IntegrityError as error:
            damaged.append((folder, error.message))
    return Found(checkpoint=None, damaged=damaged)


def arriving(root: Path, name: str) -> Path:
    """The folder of a checkpoint that arrives. Raises IntegrityError for another name."""
    _step_of(name)
    return root / f"{name}.incoming"


def receive(root: Path, name: str, *, disk: Disk = _REAL) -> Path:
    """Makes an empty folder for a checkpoint that arrives from another machine.

    Others that have begun to arrive and never did are removed: one comes after the other.

    Args:
        root: the folder of checkpoints.
        name: the checkpoint's name as the sender says it, such as `step-00000120`.

    Raises:
        IntegrityError: the name is not a checkpoint's.
        LlamaForgeError: the folder can't be made.
    """
    step = _step_of(name)
    folder = arriving(root, name)
    try:
        _make_durably(root, disk)
        for other in root.iterdir():
            if _ARRIVING.fullmatch(other.name):
                disk.remove(other)
        disk.make_folder(folder)
    except OSError as error:
        raise _not_saved(root, step, error) from error
    return folder


def accept(root: Path, name: str, keep: int, *, disk: Disk = _REAL) -> Path:
    """Makes a received checkpoint durable and final, then deletes old ones.

    Returns:
        The checkpoint's folder.

    Raises:
        IntegrityError: what arrived is not what its manifest promises; it is removed.
        LlamaForgeError: the disk is full or refuses; earlier checkpoints are untouched.
    """
    step = _step_of(name)
    folder = arriving(root, name)
    try:
        try:
            arrived = verify(folder)
            if arrived.step != step:
                raise IntegrityError(f"{folder}: its manifest is of step {arrived.step}")
        except IntegrityError:
            disk.remove(folder)
            raise
        sync(folder, disk)
        return _publish(folder, root, step, keep, disk)
    except OSError as error:
        raise _not_saved(root, step, error) from error


def free_bytes_needed(root: Path, checkpoint_bytes: int, keep: int) -> int:
    """Free bytes that saving into `root` needs: `keep` checkpoints and the one being written.

    Checkpoints that stand there already have their place and make way for the new ones.
    """
    return max(1, keep + 1 - len(_candidates(root))) * checkpoint_bytes


def _step_of(name: str) -> int:
    match = _NAME.fullmatch(name)
    if match is None:
        raise IntegrityError(f"{name!r} is not the name of a checkpoint (step-00000120)")
    return int(match[1])


def _make_durably(folder: Path, disk: Disk) -> None:
    """Makes a folder with its parents, so that a power cut leaves their names too."""
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    disk.make_folder(folder)
    for place in reversed(new):
        disk.sync_folder(place.parent)


def _candidates(root: Path) -> list[Path]:
    """Folders that may be checkpoints, newest first; a step's successor before `.replaced`."""
    folders = root.iterdir() if root.is_dir() else ()
    found = [(match, f) for f in folders if (match := _CANDIDATE.fullmatch(f.name)) and f.is_dir()]
    found.sort(key=lambda pair: (int(pair[0][1]), not pair[0][2]), reverse=True)
    return [folder for _, folder in found]


def _publish(folder: Path, root: Path, step: int, keep: int, disk: Disk) -> Path:
    """Renames a durable folder to its final name; only then old checkpoints go."""
    final = root / name(step)
    if final.exists():
        _set_aside(final, disk)
        disk.sync_folder(root)
    disk.rename(folder, final)
    disk.sync_folder(root)
    try:
        _prune(root, keep, disk)
    except OSError as error:
        _log.warning("an old checkpoint in %s can't be deleted: %s", root, error)
    return final


def _set_aside(final: Path, disk: Disk) -> None:
    """Frees a checkpoint's name for its successor without a moment in which neither counts."""
    try:
        verify(final)
    except IntegrityError:
        disk.remove(final)
    else:
        aside = final.with_name(f"{final.name}.replaced")
        disk.remove(aside)
        disk.rename(final, aside)


def _prune(root: Path, keep: int, disk: Disk) -> None:
    """Deletes what is older than the `keep`-th checkpoint that verifies, and nothing newer."""
    verified: set[int] = set()
    for folder in _candidates(root):
        step = int(folder.name[5:13])
        if step in verified or len(verified) >= keep:
            doomed = root / f"{name(step)}.deleting"
            disk.remove(doomed)
            disk.rename(folder, doomed)
            disk.remove(doomed)
            continue
        try:
            verified.add(verify(folder).step)
        except IntegrityError as error:
            _log.warning("damaged checkpoint: %s", error.message)


def _not_saved(root: Path, step: int, error: Exception) -> LlamaForgeError:
    """What a person reads when a disk refuses a checkpoint."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(error):
        cause = "the disk is full"  # safetensors has no errno, only its text
    else:
        cause = getattr(error, "strerror", None) or str(error)
    return LlamaForgeError(
        f"the checkpoint of step {step} can't be saved in {root}: {cause}; earlier ones are kept",
        hint="free some space, or move to another place with --checkpoint-dir and --auto-resume",
    )
