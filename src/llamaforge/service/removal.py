"""The way back: everything that an installation put there, and with `purge` what the service made.

Files that somebody edited go, too: they only say how a service runs that is no longer there. What
a person wrote into the drop-in folder by hand stays, and is named.
"""

from __future__ import annotations

import glob
import shutil
from pathlib import PurePosixPath

import msgspec

from llamaforge.errors import LlamaForgeError
from llamaforge.service.machine import Machine
from llamaforge.service.manifest import Manifest
from llamaforge.service.places import UNIT, Places
from llamaforge.service.request import SERVICE_USER


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """What is taken away."""

    files: tuple[str, ...]
    folders: tuple[str, ...]
    """Removed if empty, children first."""
    trees: tuple[str, ...]
    """Removed with all that is in them."""
    user: str
    """Account to remove; "" for none."""


def plan(manifest: Manifest, places: Places, *, purge: bool) -> Removal:
    """What to take away.

    Args:
        manifest: of the installation; an empty one still names the service's own folders.
        places: where its files are.
        purge: also state, cache, logs, settings and secrets.
    """
    stays = {places.settings, places.environment, places.token, places.mail_settings}
    files = [
        path
        for path in dict.fromkeys((*manifest.files, *manifest.aside, *manifest.pending))
        if purge or _base(path) not in stays
    ]
    trees = places.own if purge else ()
    made = [folder for folder in manifest.folders if not _inside(folder, trees)]
    folders = [places.dropins, *reversed(made), str(PurePosixPath(places.manifest).parent)]
    return Removal(
        files=(*(path for path in files if not _inside(path, trees)), places.manifest),
        folders=tuple(dict.fromkeys(folders)),
        trees=trees,
        user=SERVICE_USER if manifest.made_user and not places.lingering else "",
    )


def _base(path: str) -> str:
    return path.removesuffix(".new")


def _inside(path: str, trees: tuple[str, ...]) -> bool:
    return any(PurePosixPath(path).is_relative_to(tree) for tree in trees)


def carry_out(removal: Removal, places: Places, machine: Machine, *, running: bool) -> list[str]:
    """Stops the service and takes everything away. What is already gone is fine.

    Args:
        removal: from `plan`.
        places: where the service's files are.
        machine: to act on.
        running: whether systemd runs there.

    Returns:
        Sentences about what stays.

    Raises:
        LlamaForgeError: the service could not be stopped; nothing was removed.
    """
    manager = places.manager
    if running:
        _stop(machine, manager)
    machine.ask(*manager, "disable", "--quiet", UNIT)
    for path in removal.files:
        _remove(machine, path, last=path == places.manifest)
    for tree in removal.trees:
        shutil.rmtree(machine.at(tree), ignore_errors=True)
    left = [f"{tree} could not be removed" for tree in removal.trees if machine.at(tree).exists()]
    if removal.user:
        machine.ask("userdel", removal.user)
    if running:
        machine.ask(*manager, "daemon-reload")
        machine.ask(*manager, "reset-failed", UNIT)
    last = str(PurePosixPath(places.manifest).parent)
    others = [path for path in removal.folders if path != last]
    stay = [f"{path} stays: it is not empty" for path in others if _stays(machine, path)]
    machine.remove(places.manifest)  # last: with it, a removal that was cut short is done again
    machine.remove_folder(last)
    return [*stay, *left]


def _remove(machine: Machine, path: str, *, last: bool) -> None:
    """Removes a file, unless it is the one that goes last, and what a SIGKILL left beside it."""
    if not last:
        machine.remove(path)
    target = machine.at(path)
    for half in target.parent.glob(f".{glob.escape(target.name)}.????????"):
        half.unlink()


def _stays(machine: Machine, folder: str) -> bool:
    return not machine.remove_folder(folder) and machine.at(folder).is_dir()


def _stop(machine: Machine, manager: tuple[str, ...]) -> None:
    done = machine.ask(*manager, "stop", UNIT)
    if done.returncode not in (0, 5):  # 5: there is no such unit
        raise LlamaForgeError(
            f"the service could not be stopped: {done.stderr.strip()}",
            hint=f"look at it: {' '.join(manager)} status {UNIT}",
        )
