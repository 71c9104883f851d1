"""`llamaforge clean`: what this machine's caches hold, and making them smaller.

llamaforge clean --dry-run
llamaforge clean --keep 20G
sudo llamaforge clean --all
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click
import msgspec

from llamaforge import paths
from llamaforge.bundle.eviction import KINDS, Cache, Item, Sweep, text
from llamaforge.cli.asking import dry_run_option, json_option, put
from llamaforge.errors import UserError
from llamaforge.spec import settings_file
from llamaforge.spec.fleet import CoordinatorSettings, WorkerSettings, variables
from llamaforge.spec.sizes import parse_size

SERVICES: dict[Path, tuple[str, type[WorkerSettings] | type[CoordinatorSettings]]] = {
    Path("/var/cache/llamaforge"): (settings_file.PATH, WorkerSettings),
    Path("/var/cache/llamaforge-coordinator"): (
        settings_file.COORDINATOR_PATH,
        CoordinatorSettings,
    ),
}
"""The services' caches, and the settings files with their limits."""
LIMIT = "LLAMAFORGE_CACHE_LIMIT"
RECENT_SECONDS = 3600.0
"""What was used so lately stays unless all is to go: a bundle may be on its way to its job."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """The things of one kind in a cache."""

    kind: str
    things: int
    bytes: int
    gone: int
    """How many of the things went, or would go."""
    gone_bytes: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One cache, before and after."""

    folder: str
    limit: int
    """Bytes that were aimed at."""
    bytes: int
    """Bytes that are left."""
    in_use: int
    """Of them, those that running jobs and submissions need."""
    parts: tuple[Part, ...]
    dry_run: bool


@click.command("clean")
@click.option(
    "--cache-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="A cache. By default this user's, and for root the services' of this machine.",
)
@click.option("--keep", metavar="SIZE", help="Keep at most this much, such as 20G.")
@click.option("--all", "everything", is_flag=True, help="Remove all that is not in use.")
@dry_run_option
@json_option
def command(
    cache_dir: Path | None, keep: str | None, everything: bool, dry_run: bool, as_json: bool
) -> None:
    """Remove what caches hold beyond their limit.

    The longest unused goes first. Blobs, canonical and tokenised rows are made or fetched again
    when a job needs them. What running jobs need stays.
    """
    if keep and everything:
        raise UserError("--keep and --all contradict each other", hint="give one of them")
    aim = 0 if everything else parse_size(keep, source="--keep") if keep else None
    recent = 0.0 if everything else RECENT_SECONDS
    folders = [cache_dir] if cache_dir else present()
    if cache_dir and not cache_dir.is_dir():
        raise UserError(f"--cache-dir is {cache_dir}, and there is no such folder")
    for folder in folders:
        with _as_owner(folder):
            cache = Cache(folder, limit_of(folder, os.environ), recent=recent)
            done = report(folder, cache.sweep(keep=aim, dry_run=dry_run), dry_run=dry_run)
        if as_json:
            put(done)
        else:
            click.echo("\n".join(lines(done)))
    if not folders and not as_json:
        click.echo(f"there is no cache here: {paths.cache_dir()} does not exist")


def present() -> list[Path]:
    """This user's cache, and for root the services', as far as they are there."""
    services = list(SERVICES) if os.geteuid() == 0 else []
    return [folder for folder in (paths.cache_dir(), *services) if folder.is_dir()]


def limit_of(folder: Path, environ: Mapping[str, str]) -> int | None:
    """The limit that is set for a cache; None where none is. Raises SpecError."""
    service = SERVICES.get(folder)
    if service is None:
        said = environ.get(LIMIT)
        return parse_size(said, source=LIMIT) if said else None
    file, settings = service
    if not Path(file).is_file():
        return None
    said = settings_file.read(Path(file), variables(settings).values()).values.get(LIMIT)
    return parse_size(said, source=f"{LIMIT} in {file}") if said else None


def report(folder: Path, done: Sweep, *, dry_run: bool) -> Report:
    """What is told about a sweep."""
    return Report(
        folder=str(folder),
        limit=done.limit,
        bytes=done.size,
        in_use=done.kept,
        parts=tuple(
            _part(kind, [i for i in done.left if i.kind == kind], gone)
            for kind in KINDS
            if (gone := [i for i in done.gone if i.kind == kind])
            or any(i.kind == kind for i in done.left)
        ),
        dry_run=dry_run,
    )


def lines(done: Report) -> list[str]:
    """A report for people."""
    went = sum(part.gone_bytes for part in done.parts)
    head = f"{done.folder}: {text(done.bytes)}"
    if went:
        head += f"; {text(went)} {'would go' if done.dry_run else 'went'}"
    found = [head + f" (limit {text(done.limit)}, {text(done.in_use)} in use)"]
    for part in done.parts:
        gone = f", {part.gone} gone: {text(part.gone_bytes)}" if part.gone else ""
        found.append(f"  {part.kind:<11}{part.things:>7} {text(part.bytes):>10}{gone}")
    return found


def _part(kind: str, left: Sequence[Item], gone: Sequence[Item]) -> Part:
    return Part(
        kind=kind,
        things=len(left),
        bytes=sum(item.size for item in left),
        gone=len(gone),
        gone_bytes=sum(item.size for item in gone),
    )


@contextlib.contextmanager
def _as_owner(folder: Path) -> Iterator[None]:
    """Works as the user whose folder it is, so that root leaves no file that the service can't use.

    Raises:
        UserError: it is another user's, and we are not root.
    """
    owner = folder.stat()
    if owner.st_uid == os.geteuid():
        yield
        return
    if os.geteuid() != 0:
        raise UserError(f"{folder} belongs to another user (uid {owner.st_uid})", hint="use sudo")
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
