"""A job from what was asked for to its end: prepare, find a fleet, submit, watch, fetch.

Where a fleet runs the job goes there; where none does, a private coordinator and worker are
started for it: the same path on one machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from llamaforge import paths
from llamaforge.bundle.make import Prepared, make_bundle
from llamaforge.bundle.models import SHIPPED
from llamaforge.bundle.store import BlobStore
from llamaforge.cli import words
from llamaforge.cli.embedded import EmbeddedFleet
from llamaforge.cli.fetching import fetch
from llamaforge.cli.following import Outcome, catch_up, watch
from llamaforge.cli.job_folder import RUNS
from llamaforge.cli.progress import View
from llamaforge.cli.tally import Tally
from llamaforge.errors import UserError
from llamaforge.spec.job import JobSpec
from llamaforge.spec.states import JobState
from llamaforge.wire import fleet_file
from llamaforge.wire.api import Status
from llamaforge.wire.client import FleetClient

Answer = TypeVar("Answer")


def user_store() -> BlobStore:
    """This user's blob store, shared by all commands, coordinators and workers."""
    return BlobStore(paths.cache_dir() / "blobs")


def prepare(spec: JobSpec) -> Prepared:
    """Resolves a spec with this user's store and cache.

    Raises:
        UserError: data, model or folders can't be used as asked.
    """
    return make_bundle(with_whole_paths(spec), user_store(), cache=paths.cache_dir())


def with_whole_paths(spec: JobSpec) -> JobSpec:
    """The spec with absolute paths to what it reads, so that its job.yaml means the same anywhere.

    Folders that it writes to stay as they are.
    """
    whole: dict[str, str] = {}
    for key in ("model", "dataset", "heldout", "chat_template"):
        value = getattr(spec, key)
        shipped = key == "model" and value in SHIPPED and not Path(value).is_dir()
        if value is not None and not shipped and Path(value).expanduser().exists():
            whole[key] = str(Path(value).expanduser().absolute())
    return msgspec.structs.replace(spec, **whole)


@contextmanager
def any_fleet(
    say: Callable[[str], None],
    path: Path | None = None,
    *,
    workers: int = 1,
    registered: bool = False,
) -> Iterator[FleetClient]:
    """The fleet that runs, or one of `workers` for the time of the block.

    Args:
        say: is told in one line which of the two it is.
        path: the fleet file of the fleet to use; None: the one that is found, if any.
        workers: how many to start where no fleet runs.
        registered: let other commands find the fleet that is started.
    """
    running = FleetClient.open(path).fleet if path is not None else fleet_file.search()
    if running is not None:
        say(f"using the fleet at {running.host}:{running.port}")
        yield FleetClient(running)
        return
    say(f"no fleet runs: starting {words.count(workers, 'worker')} on this machine for this job")
    with EmbeddedFleet(workers=workers, registered=registered) as fleet:
        yield fleet.client()


async def ask_status(client: FleetClient) -> Status:
    """The fleet's nodes and jobs, over a connection of its own."""
    async with client:
        return await client.status()


def held_job(spec: JobSpec, path: Path | None) -> tuple[FleetClient, str] | None:
    """The earlier job that `--auto-resume` means on a fleet that keeps jobs' folders itself.

    Returns:
        None where a new job is to be made, or its checkpoints are looked for here.

    Raises:
        UserError: a job of that kind can only be found by its name, and none was given.
        FleetError: the fleet can't be reached.
    """
    fleet = fleet_file.search(path) if spec.auto_resume else None
    if fleet is None or not (client := FleetClient(fleet)).keeps_folders:
        return None
    if spec.name is None:
        raise UserError(
            "--auto-resume needs --name here: this fleet keeps its jobs' folders itself",
            hint="`llamaforge jobs --all` lists them; `llamaforge resume JOB` goes on with one",
        )
    name = spec.name

    async def known() -> bool:
        async with client:
            return any(job.id == name for job in await client.jobs())

    return (client, name) if asyncio.run(known()) else None


def submit(prepared: Prepared, client: FleetClient, view: View) -> str:
    """Submits a job and returns at once.

    Returns:
        The job's id.

    Raises:
        FleetError: the coordinator is gone.
        UserError: it refuses.
    """

    async def run() -> str:
        async with client:
            return await _submit(prepared, client, view)

    return asyncio.run(run())


def run_job(prepared: Prepared, client: FleetClient, view: View) -> Outcome | None:
    """Submits a job and shows it until it ends.

    What Ctrl-C does meanwhile: `cli.interrupts`.

    Returns:
        None when the person has detached and the job goes on.

    Raises:
        FleetError: the coordinator is gone, or a worker of a private fleet can't be kept alive.
        KeyboardInterrupt: interrupted before the job was submitted, or three times.
    """
    return _interruptible(_run(prepared, client, view))


def go_on(job_id: str, spec: JobSpec, client: FleetClient, view: View) -> Outcome | None:
    """Shows a job that the fleet has already, until it ends; one that had ended is resumed first.

    Raises:
        UserError: there is nothing to go on with.
        FleetError, KeyboardInterrupt: as `run_job`.
    """

    async def run() -> Outcome | None:
        async with client:
            job = await client.job(job_id)
            if job.state is JobState.DONE:
                raise UserError(
                    f"job {job_id} is done already",
                    hint=f"its files: llamaforge fetch {job_id}; another job needs another --name",
                )
            if job.state.final:
                await client.resume(job_id)
                view.say(f"job {job_id} goes on after step {job.step}")
            else:
                view.say(f"job {job_id} is {job.state.value} already")
            tally = Tally(job.total_steps, first_step=job.step)
            position = await catch_up(client, job_id, tally)
            return await _to_the_end(client, _Errand.of(job_id, spec), tally, view, position)

    return _interruptible(run())


def _interruptible(work: Coroutine[Any, Any, Answer]) -> Answer:
    try:
        return asyncio.run(work)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


@dataclass(frozen=True, kw_only=True)
class _Errand:
    """A job, and where its files are to be in the end."""

    job_id: str
    spec: JobSpec
    folder: Path
    checkpoints: Path | None

    @classmethod
    def of(cls, job_id: str, spec: JobSpec) -> _Errand:
        folder = Path(spec.output_dir).expanduser() if spec.output_dir else RUNS / job_id
        kept = Path(spec.checkpoint_dir).expanduser() if spec.checkpoint_dir else None
        return cls(job_id=job_id, spec=spec, folder=folder, checkpoints=kept)


async def _run(prepared: Prepared, client: FleetClient, view: View) -> Outcome | None:
    first = prepared.resume.step if prepared.resume else 0
    tally = Tally(prepared.job.total_steps, first_step=first)
    async with client:
        job_id = await _submit(prepared, client, view)
        spec = prepared.job.spec
        errand = _Errand(
            job_id=job_id,
            spec=spec,
            folder=prepared.output_dir,
            checkpoints=prepared.checkpoint_dir if spec.checkpoint_dir else None,
        )
        return await _to_the_end(client, errand, tally, view)


async def _submit(prepared: Prepared, client: FleetClient, view: View) -> str:
    client.tell = view.say
    own = client.keeps_folders
    return await client.submit(
        prepared.job,
        prepared.manifest,
        user_store(),
        output_dir=None if own else prepared.output_dir.absolute(),
        checkpoint_dir=None if own else prepared.checkpoint_dir.absolute(),
        resume_step=prepared.resume.step if prepared.resume else None,
        on_progress=lambda progress: view.moved("upload", progress.sent, progress.total),
    )


async def _to_the_end(
    client: FleetClient, errand: _Errand, tally: Tally, view: View, position: int = 0
) -> Outcome | None:
    """Shows the job until it ends, and brings its files here where they are elsewhere."""
    view.begin(tally)
    watched = await watch(client, errand.job_id, tally, view, position=position)
    if watched.ended is None:
        return None
    folder = Path(watched.ended.output_dir)
    if client.keeps_folders:
        folder = errand.folder
        await fetch(
            client,
            errand.job_id,
            folder,
            checkpoints=errand.checkpoints,
            tell=lambda done, total: view.moved("download", done, total),
        )
    return Outcome(
        job_id=errand.job_id,
        tally=tally,
        ended=watched.ended,
        interrupted=watched.cancelled,
        folder=folder,
        spec=errand.spec,
        resumable=client.keeps_folders,
    )


def shown_path(path: Path) -> str:
    """A path as short as it can be written from the current folder."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
