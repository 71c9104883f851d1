"""A job from what was asked for to its end: prepare, find a fleet, submit, follow, stop on request.

Where a fleet runs the job goes there; where none does, a private coordinator and worker are
started for it: the same path on one machine.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from llamaforge import paths
from llamaforge.bundle.make import Prepared, make_bundle
from llamaforge.bundle.models import SHIPPED
from llamaforge.bundle.store import BlobStore
from llamaforge.cli import words
from llamaforge.cli.embedded import EmbeddedFleet
from llamaforge.cli.keeping import Keeping
from llamaforge.cli.progress import View
from llamaforge.cli.tally import Tally
from llamaforge.errors import FleetError, JobFailed, UserError
from llamaforge.spec.job import JobSpec
from llamaforge.spec.states import JobState
from llamaforge.wire import fleet_file
from llamaforge.wire.api import Status
from llamaforge.wire.client import FleetClient
from llamaforge.wire.updates import Ended


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A job that has ended, however it did."""

    prepared: Prepared
    tally: Tally
    ended: Ended
    interrupted: bool
    """Whether this command was asked to stop it."""


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
    say: Callable[[str], None], *, workers: int = 1, registered: bool = False
) -> Iterator[FleetClient]:
    """The fleet that runs, or one of `workers` for the time of the block.

    Args:
        say: is told in one line which of the two it is.
        workers: how many to start where no fleet runs.
        registered: let other commands find the fleet that is started.
    """
    running = fleet_file.find()
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


def run_job(prepared: Prepared, client: FleetClient, view: View) -> Outcome:
    """Submits a job and shows it until it ends.

    Ctrl-C (or SIGTERM) asks for a checkpoint and the job's end, a second one ends it at once, a
    third leaves without waiting.

    Raises:
        FleetError: the coordinator is gone, or a worker of a private fleet can't be kept alive.
        KeyboardInterrupt: interrupted before the job was submitted, or three times.
    """
    try:
        return asyncio.run(_run(prepared, client, view))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _run(prepared: Prepared, client: FleetClient, view: View) -> Outcome:
    first = prepared.resume.step if prepared.resume else 0
    tally = Tally(prepared.job.total_steps, first_step=first)
    async with client:
        job_id = await client.submit(
            prepared.job,
            prepared.manifest,
            user_store(),
            output_dir=prepared.output_dir.absolute(),
            checkpoint_dir=prepared.checkpoint_dir.absolute(),
            resume_step=prepared.resume.step if prepared.resume else None,
            on_progress=lambda progress: view.sent(progress.sent, progress.total),
        )
        view.begin(tally)
        with Interrupts(client, job_id, view.say) as interrupts:
            async with Keeping(client.keeper, view.say):
                async for update in client.follow(job_id):
                    tally.take(update)
                    view.show(update)
    if tally.ended is None:
        raise FleetError(f"the stream of job {job_id} ended before the job did")
    return Outcome(
        prepared=prepared, tally=tally, ended=tally.ended, interrupted=interrupts.count > 0
    )


class Interrupts:
    """Turns Ctrl-C and SIGTERM into requests to stop a job, each one more urgent than the last.

    At the end of the block both mean again what they meant before.

    Args:
        client: the fleet's client.
        job_id: the job.
        say: tells the person what was understood.
    """

    def __init__(self, client: FleetClient, job_id: str, say: Callable[[str], None]) -> None:
        self.count = 0
        self._client = client
        self._job_id = job_id
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        self._requests: list[asyncio.Task[None]] = []
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.getsignal(number)
            self._loop.add_signal_handler(number, self._interrupted)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.remove_signal_handler(number)
            signal.signal(number, self._before[number])
        for request in self._requests:
            request.cancel()

    def _interrupted(self) -> None:
        self.count += 1
        if self.count == 1:
            self._say(
                "stopping: saving a checkpoint at the next step; Ctrl-C again ends it at once"
            )
        elif self.count == 2:
            self._say("ending the job at once")
        elif self._main is not None:
            self._main.cancel()
            return
        self._requests.append(self._loop.create_task(self._ask(now=self.count > 1)))

    async def _ask(self, *, now: bool) -> None:
        try:
            await self._client.stop(self._job_id, "interrupted on the command line", now=now)
        except FleetError as error:
            self._say(f"could not ask the coordinator to stop the job: {error.message}")


def raise_if_failed(outcome: Outcome) -> None:
    """Turns a failed job into the error that a person sees.

    Raises:
        UserError: the person who asked can fix it.
        JobFailed: the job failed otherwise.
    """
    ended = outcome.ended
    if ended.state is not JobState.FAILED:
        return
    kind = UserError if ended.user_error else JobFailed
    raise kind(f"job {outcome.prepared.job.id} failed: {ended.reason}", hint=ended.hint)


def shown_path(path: Path) -> str:
    """A path as short as it can be written from the current folder."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
