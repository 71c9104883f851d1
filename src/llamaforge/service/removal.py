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
from llamaforge.service.kind import GROUP
from llamaforge.service.machine import Machine
from llamaforge.service.manifest import Manifest
from llamaforge.service.places import Places


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """What is taken away."""

    files: tuple[str, ...]
    folders: tuple[str, ...]
    """Removed if empty, children first."""
    trees: tuple[str, ...]
    """Removed with all that is in them."""
    user: str
    """Account to remove; "" for none."""
    group: str = ""
    """Group to remove where no other account has it; "" for none."""


def plan(
    manifest: Manifest, places: Places, *, purge: bool, others: frozenset[str] = frozenset()
) -> Removal:
    """What to take away.

    Args:
        manifest: of the installation; an empty one still names the service's own folders.
        places: where its files are.
        purge: also state, cache, logs, settings and secrets.
        others: files of another service on this machine, from `neighbours`; they stay.
    """
    stays = {places.settings, places.environment, places.token, places.mail_settings}
    known = (*manifest.files, *manifest.aside, *manifest.pending)
    mine = _own_files(places) if purge else ()
    files = [
        path
        for path in dict.fromkeys((*known, *mine))
        if path not in others and (purge or _base(path) not in stays)
    ]
    trees = _trees(places, others) if purge else ()
    made = [folder for folder in manifest.folders if not _inside(folder, trees)]
    made = [folder for folder in made if not any(_inside(path, (folder,)) for path in others)]
    folders = [places.dropins, *reversed(made), str(PurePosixPath(places.manifest).parent)]
    return Removal(
        files=(*(path for path in files if not _inside(path, trees)), places.manifest),
        folders=tuple(dict.fromkeys(folders)),
        trees=trees,
        user=places.kind.user if manifest.made_user and not places.lingering else "",
        group=GROUP if manifest.made_user and not places.lingering and not others else "",
    )


def _own_files(places: Places) -> tuple[str, ...]:
    """Settings and secrets that no other service uses, whoever wrote them."""
    secrets = (places.environment, places.token) if places.kind.runs_ranks else ()
    return tuple(f"{path}{end}" for path in (places.settings, *secrets) for end in ("", ".new"))


def _trees(places: Places, others: frozenset[str]) -> tuple[str, ...]:
    """Folders to remove whole. That of the settings is shared, and goes with the last service."""
    shared = any(_inside(path, (places.etc,)) for path in others)
    return places.own if shared else (places.etc, *places.own)


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
        _stop(machine, manager, places.kind.unit)
    machine.ask(*manager, "disable", "--quiet", places.kind.unit)
    for path in removal.files:
        _remove(machine, path, last=path == places.manifest)
    for tree in removal.trees:
        shutil.rmtree(machine.at(tree), ignore_errors=True)
    left = [f"{tree} could not be removed" for tree in removal.trees if machine.at(tree).exists()]
    if removal.user:
        machine.ask("userdel", removal.user)
    if removal.group:
        machine.ask("groupdel", removal.group)  # most userdel have removed it
    if running:
        machine.ask(*manager, "daemon-reload")
        machine.ask(*manager, "reset-failed", places.kind.unit)
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


def _stop(machine: Machine, manager: tuple[str, ...], unit: str) -> None:
    done = machine.ask(*manager, "stop", unit)
    if done.returncode not in (0, 5):  # 5: there is no such unit
        raise LlamaForgeError(
            f"the service could not be stopped: {done.stderr.strip()}",
            hint=f"look at it: {' '.join(manager)} status {unit}",
        )
