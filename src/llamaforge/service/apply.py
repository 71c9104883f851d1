"""Carries a plan out: what to do with each file, then all of it, or nothing after an error.

A file is decided by three texts, as package managers do with configuration: what we wrote last
time, what stands there now, and what we would write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from functools import partial
from pathlib import PurePosixPath

import msgspec

from llamaforge.errors import LlamaForgeError
from llamaforge.service.machine import Machine
from llamaforge.service.manifest import Manifest, digest, encode
from llamaforge.service.places import Places
from llamaforge.service.plan import Command, Facts, File, Plan

ASIDE = ".new"


class Act(Enum):
    """What is done with one file."""

    WRITE = "write"
    SAME = "same"
    """It already says so."""
    KEEP = "keep"
    """Somebody edited it, and we have nothing new to say."""
    ASIDE = "aside"
    """Somebody edited it, and ours has changed: ours goes beside it, as `….new`."""
    REMOVE = "remove"
    """An earlier plan wrote it, this one does not."""
    LEAVE = "leave"
    """Like REMOVE, but somebody edited it."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One file and what is done with it."""

    act: Act
    path: str
    file: File | None = None
    """What the plan wants; None when it wants nothing there."""
    before: str | None = None
    """What stands there; None for nothing."""


def decide(
    wanted: str | None, there: str | None, recorded: str | None, pending: str | None = None
) -> Act:
    """What to do with one file.

    Args:
        wanted: what the plan says; None when it says nothing.
        there: what stands on the disk; None when there is no file.
        recorded: digest of what we wrote last time; None when we never did.
        pending: digest of what an installation that was cut short may have written there.
    """
    ours = there is None or digest(there) in (recorded, pending)
    if wanted is None:
        return Act.REMOVE if ours else Act.LEAVE
    if there == wanted:
        return Act.SAME
    if ours:
        return Act.WRITE
    return Act.KEEP if digest(wanted) == recorded else Act.ASIDE


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A plan held against a machine; nothing is touched yet."""

    plan: Plan
    facts: Facts
    places: Places
    manifest: Manifest
    """Of the installation before."""
    steps: tuple[Step, ...]

    @property
    def changes(self) -> bool:
        """Whether any file of the service will be another one."""
        return any(
            step.act is Act.WRITE or (step.act is Act.REMOVE and step.before is not None)
            for step in self.steps
        )


def prepare(
    plan: Plan, manifest: Manifest, facts: Facts, places: Places, machine: Machine
) -> Prepared:
    """Compares a plan with the machine."""
    return Prepared(
        plan=plan,
        facts=facts,
        places=places,
        manifest=manifest,
        steps=_steps(plan, manifest, machine),
    )


def _steps(plan: Plan, manifest: Manifest, machine: Machine) -> tuple[Step, ...]:
    """Every file of the plan, and every file of an earlier one that is no longer wanted."""
    wanted = {file.path: file for file in plan.files}
    known = [path for path in (*manifest.files, *manifest.pending) if not path.endswith(ASIDE)]
    gone = [path for path in known if path not in wanted and path not in plan.keeps]
    every = dict.fromkeys([*wanted, *gone])
    return tuple(_step(path, wanted.get(path), manifest, machine) for path in every)


def _step(path: str, file: File | None, manifest: Manifest, machine: Machine) -> Step:
    there = machine.read(path)
    recorded, pending = manifest.files.get(path), manifest.pending.get(path)
    act = decide(file.content if file else None, there, recorded, pending)
    if file is not None and file.given and act in (Act.ASIDE, Act.KEEP):
        act = Act.WRITE
    return Step(act=act, path=path, file=file, before=there)


def apply(prepared: Prepared, machine: Machine) -> list[str]:
    """Writes files, runs commands, and remembers; after an error all is as it was.

    What will be written is remembered first. So, after a SIGKILL or a power cut anywhere, asking
    again takes what stands there for its own, and removal finds it.

    Returns:
        Sentences about what could not be done and is not needed at once.

    Raises:
        LlamaForgeError: a command failed, or something could not be taken back.
        OSError: a file could not be written.
    """
    undo: list[Callable[[], object]] = []
    said: list[str] = []
    manifest = prepared.places.manifest
    folders = machine.make_folders(str(PurePosixPath(manifest).parent))
    forget = [*_removals(machine, folders), _restore(machine, manifest)]
    try:
        machine.write(manifest, encode(_intended(prepared, folders, machine)), 0o600)
        for step in prepared.steps:
            folders += _carry_out(step, machine, undo)
        for command in prepared.plan.commands:
            if prepared.facts.running or not command.needs_systemd:
                undo.extend(_undo_command(command, prepared, machine))
                said += machine.run(command)
        machine.write(manifest, encode(remembered(prepared, tuple(folders))), 0o600)
    except BaseException as why:
        _take_back(undo, forget, why, prepared.places.kind.install)
        raise
    return said


def _intended(prepared: Prepared, folders: list[str], machine: Machine) -> Manifest:
    """The manifest while the files are being written."""
    pending = {step.path: digest(step.file.content) for step in prepared.steps if step.file}
    asides = [step.path for step in prepared.steps if step.act is Act.ASIDE]
    pending |= {path + ASIDE: pending[path] for path in asides}
    parents = [str(folder) for path in pending for folder in PurePosixPath(path).parents]
    missing = [folder for folder in parents if not machine.at(folder).is_dir()]
    before = prepared.manifest
    return msgspec.structs.replace(
        before,
        pending=pending,
        folders=tuple(dict.fromkeys((*before.folders, *folders, *sorted(missing)))),
        made_user=before.made_user or not prepared.facts.service_user,
    )


def _take_back(
    undo: list[Callable[[], object]],
    forget: list[Callable[[], object]],
    why: BaseException,
    install: str,
) -> None:
    """Undoes what was done, the last thing first, and forgets it if all of it could be.

    Raises:
        LlamaForgeError: names what stays.
    """
    stays = []
    for back in reversed(undo):
        try:
            back()
        except OSError as error:
            stays.append(str(error))
    if not stays:
        for back in reversed(forget):
            back()
    elif isinstance(why, Exception):
        raise LlamaForgeError(
            f"{why}; and not all could be taken back: {', '.join(stays)}",
            hint=f"when that is mended, install again or remove it all: {install} --uninstall",
        ) from why


def _undo_command(
    command: Command, prepared: Prepared, machine: Machine
) -> Iterator[Callable[[], object]]:
    """What takes a command back; an undone one may have done nothing, so failures don't count."""
    words = command.words
    if words[0] == "systemd-sysusers" and not prepared.facts.service_user:
        yield lambda: machine.ask("userdel", prepared.places.kind.user)
    if words[-1] == "daemon-reload":
        yield lambda: machine.ask(*words)
    if "enable" in words and not prepared.manifest.files:
        yield lambda: machine.ask(*("disable" if word == "enable" else word for word in words))


def _carry_out(step: Step, machine: Machine, undo: list[Callable[[], object]]) -> list[str]:
    """Does one step; returns the folders it made."""
    folders: list[str] = []
    if step.file is not None and step.act in (Act.WRITE, Act.ASIDE):
        path = step.path + (ASIDE if step.act is Act.ASIDE else "")
        folders = machine.make_folders(str(PurePosixPath(path).parent))
        undo.extend(_removals(machine, folders))
        undo.append(_restore(machine, path))
        machine.write(path, step.file.content, step.file.mode)
    elif step.act is Act.REMOVE and step.before is not None:
        undo.append(_restore(machine, step.path))
        machine.remove(step.path)
    merged = step.act in (Act.SAME, Act.WRITE, Act.REMOVE)
    if merged and machine.read(step.path + ASIDE) is not None:
        undo.append(_restore(machine, step.path + ASIDE))
        machine.remove(step.path + ASIDE)
    return folders


def _restore(machine: Machine, path: str) -> Callable[[], object]:
    """What puts a file back as it is now, with its mode."""
    before = machine.read(path)
    if before is None:
        return lambda: machine.remove(path)
    text, mode = before, machine.at(path).stat().st_mode & 0o777
    return lambda: machine.write(path, text, mode)


def _removals(machine: Machine, folders: list[str]) -> Iterator[Callable[[], object]]:
    yield from (partial(machine.remove_folder, folder) for folder in folders)


def remembered(prepared: Prepared, folders: tuple[str, ...]) -> Manifest:
    """The manifest after the steps. For an edited file it holds what we last said."""
    plan, before = prepared.plan, prepared.manifest
    files = {path: before.files[path] for path in plan.keeps if path in before.files}
    aside = []
    for step in prepared.steps:
        if step.file is not None:
            files[step.path] = digest(step.file.content)
        elif step.act is Act.LEAVE and step.path in before.files:
            files[step.path] = before.files[step.path]
        new = step.path + ASIDE
        if step.act is Act.ASIDE or (step.act is Act.KEEP and new in before.aside):
            aside.append(new)
    return Manifest(
        request=plan.request,
        files=dict(sorted(files.items())),
        aside=tuple(aside),
        folders=tuple(dict.fromkeys((*before.folders, *folders))),
        made_user=before.made_user or not prepared.facts.service_user,
    )
