"""The seal of a checkpoint folder: `manifest.json`, written last, with every file's SHA-256.

A folder whose manifest is there and whose files agree with it is complete; any other is damaged,
and `verify` says which file and why.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from llamaforge.bundle import digest
from llamaforge.bundle.disk import Disk
from llamaforge.bundle.manifest import Entry, Manifest
from llamaforge.errors import IntegrityError

STATE = "state.json"
MANIFEST = "manifest.json"

_NAMED = re.compile(r"step-([0-9]{8})(\.\w+)?")


class _Seal(msgspec.Struct, frozen=True, kw_only=True):
    """What `manifest.json` holds."""

    step: int
    files: Manifest
    format: int = 1


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose every byte was just compared with its digests."""

    path: Path
    step: int
    """Steps committed when it was saved; training goes on with step + 1."""
    state: dict[str, Any]
    """What `state.json` holds: `step`, and whatever its writer handed to `commit`."""
    manifest: Manifest
    """Every file but `manifest.json` itself."""


def seal(folder: Path, step: int, disk: Disk) -> None:
    """Writes the manifest after every file is durable, then makes the whole folder durable."""
    entries = []
    for file in _files(folder):
        disk.sync_file(file)  # before the manifest promises its bytes
        relative = file.relative_to(folder).as_posix()
        entries.append(Entry(path=relative, sha256=digest.of_file(file), size=file.stat().st_size))
    manifest = folder / MANIFEST
    content = _Seal(step=step, files=Manifest(entries=tuple(entries)))
    disk.write(manifest, msgspec.json.format(msgspec.json.encode(content)))
    sync(folder, disk)


def sync(folder: Path, disk: Disk) -> None:
    """Makes every file and every folder below `folder` durable, and the folder itself last."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            disk.sync_folder(path)
        else:
            disk.sync_file(path)
    disk.sync_folder(folder)


def verify(path: Path) -> Checkpoint:
    """Reads a whole checkpoint and compares it with its manifest.

    Raises:
        IntegrityError: names the file and what differs: missing, extra, size or SHA-256.
    """
    try:
        content = _read(path)
        _compare(path, content.files)
        state = msgspec.json.decode((path / STATE).read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise IntegrityError(f"{path}: can't be read: {error.strerror or error}") from error
    except msgspec.MsgspecError as error:
        raise IntegrityError(f"{path / STATE}: not the JSON it should be: {error}") from error
    return Checkpoint(path=path, step=content.step, state=state, manifest=content.files)


def _read(path: Path) -> _Seal:
    manifest = path / MANIFEST
    if not manifest.is_file():
        raise IntegrityError(f"{path}: {MANIFEST} is missing, so it was never completed")
    try:
        content = msgspec.json.decode(manifest.read_bytes(), type=_Seal)
    except msgspec.MsgspecError as error:
        raise IntegrityError(f"{manifest}: not the JSON it should be: {error}") from error
    content.files.check()
    named = _NAMED.fullmatch(path.name)
    if named and int(named[1]) != content.step:
        raise IntegrityError(f"{manifest}: is of step {content.step}, not of the folder's")
    return content


def _compare(path: Path, manifest: Manifest) -> None:
    """Compares names, sizes and digests, cheapest first."""
    promised = {entry.path: entry for entry in manifest.entries}
    present = {file.relative_to(path).as_posix(): file for file in _files(path)}
    for missing in sorted((promised.keys() | {STATE}) - present.keys()):
        raise IntegrityError(f"{path / missing}: is missing")
    for extra in sorted(present.keys() - promised.keys()):
        raise IntegrityError(f"{path / extra}: is not in {MANIFEST}")
    for relative, file in present.items():
        size, promise = file.stat().st_size, promised[relative]
        if size != promise.size:
            raise IntegrityError(f"{file}: has {size} bytes, not {promise.size}")
    for relative, file in present.items():
        if digest.of_file(file) != promised[relative].sha256:
            raise IntegrityError(f"{file}: its SHA-256 differs from the one in {MANIFEST}")


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder but the manifest, sorted."""
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() and path != folder / MANIFEST:
            yield path
