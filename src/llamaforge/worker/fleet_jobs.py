"""The coordinator's jobs on this worker: what it orders, what runs, what is told back."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING

from llamaforge.spec.fleet import WorkerSettings
from llamaforge.spec.ranks import Progress
from llamaforge.wire.messages import (
    Busy,
    CannotStart,
    DumpStacks,
    FromCoordinator,
    Hello,
    Idle,
    Leaving,
    Left,
    Preflight,
    Rendezvous,
    Roster,
    StartRanks,
    StopRanks,
)
from llamaforge.worker import facts
from llamaforge.worker.busy import BusyLock
from llamaforge.worker.canary import Canary
from llamaforge.worker.enrol import identity_of
from llamaforge.worker.exchange import Exchange
from llamaforge.worker.link import Link
from llamaforge.worker.link_test import LinkTest, TlsDialler
from llamaforge.worker.memory import trim_memory
from llamaforge.worker.preflight import Preflights
from llamaforge.worker.rank_runner import RankRunner

if TYPE_CHECKING:
    from llamaforge.worker.node_job import NodeJob

REMEMBERED = 1000
"""Generations by which an order is known as one that came before."""
END_SECONDS = 10.0
"""How long ranks that are ended, and transfers, may take; ranks are killed before."""
FLUSH_SECONDS = 5.0
"""How long ended ranks' last messages may take to reach the coordinator when the worker ends."""

log = logging.getLogger("llamaforge.worker")


class FleetJobs:
    """One job of the coordinator after the other, and the link that brings them.

    Args:
        settings: tells the settings of the moment; they change on a reload.
        busy: shared with whatever else brings jobs to this worker.
        runner: starts ranks.
        identity: this worker's.
        versions: what it runs, for the greeting.
        peer_port: where health is served.
        exchange: the node's cache and transfers.
    """

    def __init__(
        self,
        settings: Callable[[], WorkerSettings],
        busy: BusyLock,
        runner: RankRunner,
        *,
        identity: str,
        versions: dict[str, str],
        peer_port: int,
        exchange: Exchange,
    ) -> None:
        self._settings, self._busy, self._runner = settings, busy, runner
        self._exchange = exchange
        self._state = Path(settings().state_dir)
        self._identity, self._peer_port = identity, peer_port
        self._session = secrets.token_hex(8)
        self._versions = versions
        self._job: NodeJob | None = None
        self._running: asyncio.Task[None] | None = None
        self._left = False
        self._had: OrderedDict[tuple[str, int], None] = OrderedDict()
        """Generations that were started here: a coordinator may order them once more."""
        self._canary = Canary(runner, Path(settings().cache_dir), self._state)
        links = LinkTest(TlsDialler(lambda: identity_of(settings())))
        self._preflights = Preflights(settings, self._canary, links)
        self._beside: set[asyncio.Future[None]] = set()
        """What is done for the coordinator beside a job; kept, since nobody waits for it."""
        self.count = 0
        """Jobs since the start."""
        self.link = Link(settings, hello=self._hello, heard=self._heard, abandoned=self._abandoned)
        """The connection to the coordinator; `run` it."""
        busy.on_change(self._busy_changed)

    @property
    def ranks(self) -> int:
        """Ranks that run now."""
        return self._job.running if self._job else 0

    @property
    def progress(self) -> Progress | None:
        """Where the running job is; None while there is none, or its ranks have not met."""
        return self._job.progress if self._job else None

    async def leave(self, hurry: asyncio.Event) -> None:
        """Lets the ranks save a checkpoint; on `hurry`, or after a while, ends them.

        From here on nothing new is started. Returns when the coordinator knows that all is over.
        """
        self._left = True
        job, running = self._job, self._running
        if job is not None and running is not None and not running.done():
            self.link.send(Leaving(reason="its worker was told to end"))
            job.stop("checkpoint", "the worker was told to end")
            await self._ended(job, running, hurry)
        await self._canary.close()
        self.link.send(Left())
        if self.link.connected:
            await self.link.flush(FLUSH_SECONDS)

    async def _ended(self, job: NodeJob, running: asyncio.Task[None], hurry: asyncio.Event) -> None:
        hurried = asyncio.ensure_future(hurry.wait())
        await asyncio.wait(
            {running, hurried},
            timeout=self._settings().stop_seconds,
            return_when=asyncio.FIRST_COMPLETED,
        )
        hurried.cancel()
        if not running.done():
            job.stop("end", "it did not leave in time")
            await asyncio.wait({running}, timeout=END_SECONDS)
            running.cancel()  # it waits for a coordinator that does not answer
            await asyncio.wait({running})

    def clear_leftovers(self) -> None:
        """Removes folders of jobs that a power cut or a SIGKILL left behind."""
        for folder in (self._state / "jobs").glob("*"):
            if folder.suffix != ".kept":
                shutil.rmtree(folder, ignore_errors=True)

    # ── what the coordinator says ─────────────────────────────────────────────────────────────

    def _hello(self, address: str) -> Hello:
        settings = self._settings()
        return Hello(
            node=settings.name,
            identity=self._identity,
            session=self._session,
            cores=settings.cores or facts.cores(),
            memory=facts.memory(),
            versions=self._versions,
            capabilities=("ranks",) if settings.master_addr is None else ("ranks", "classic"),
            peer_port=self._peer_port,
            address=address,
            ranks=settings.ranks,
            busy=self._busy.holder or "",
            labels=settings.node_labels,
            gpus=facts.gpus(),
        )

    def _heard(self, message: FromCoordinator) -> None:
        if isinstance(message, StartRanks):
            self._start(message)
        elif isinstance(message, Roster):
            self._exchange.roster(message)
            self._aside(self._tell_of_cache(always=True))
        elif isinstance(message, Preflight):
            self._aside(self._look(message))
        elif self._job is None or self._job.job_id != message.job_id:
            return
        elif isinstance(message, Rendezvous):
            self._job.rendezvous(message)
        elif isinstance(message, DumpStacks):
            self._aside(self._job.tell_stacks())
        elif isinstance(message, StopRanks) and message.generation in (
            None,
            self._job.generation,
        ):
            self._job.stop(message.how, message.reason)

    def _aside(self, work: Coroutine[None, None, None]) -> None:
        """Does something while jobs go on; an error in it is a bug, and is told."""
        doing = asyncio.ensure_future(work)
        self._beside.add(doing)
        doing.add_done_callback(self._beside.discard)
        doing.add_done_callback(_tell_of_bug)

    async def _look(self, question: Preflight) -> None:
        self.link.send(await self._preflights.answer(question, address=self.link.address))

    async def _tell_of_cache(self, *, always: bool = False) -> None:
        inventory = await self._exchange.inventory(always=always)
        if inventory is not None:
            self.link.send(inventory)

    def _start(self, order: StartRanks) -> None:
        which = (order.job_id, order.generation)
        if which in self._had:
            return
        self._had[which] = None
        if len(self._had) > REMEMBERED:
            self._had.popitem(last=False)
        target = self.link.target
        if target is None or self._left or not self._busy.take(f"job {order.job_id}"):
            self.link.send(
                CannotStart(
                    job_id=order.job_id,
                    generation=order.generation,
                    kind="Busy",
                    message=self._busy.holder or "it is leaving",
                    busy=True,
                )
            )
            return
        self.count += 1
        settings = self._settings()
        self._job = _kind(order)(
            order,
            node=settings.name,
            address=self.link.address,
            jobs=self._state / "jobs",
            cache=Path(settings.cache_dir),
            runner=self._runner,
            http=self._exchange.transfers(
                lambda: self.link.target or target, order, self.link.send
            ),
            send=self.link.send,
            network_timeout=settings.network_timeout,
        )
        self._running = asyncio.ensure_future(self._run(self._job))

    async def _run(self, job: NodeJob) -> None:
        try:
            await job.run()
        except OSError as why:
            log.warning("job %s: %s", job.job_id, why, extra=job.fields())
        finally:
            self._job = None
            self._busy.free()
            self._aside(self._tell_of_cache())
            trim_memory()

    def _abandoned(self) -> None:
        """The coordinator has lost this worker's job: it gave up, or is a new one."""
        if self._job is not None:
            log.info("the coordinator knows nothing of job %s: ending it", self._job.job_id)
            self._job.kill()

    def _busy_changed(self) -> None:
        """Tells the coordinator about what it can't know: the end of a job, a classic one."""
        holder = self._busy.holder
        if holder is None and not self._left:
            self.link.send(Idle())
            log.info("waiting for a job")
        elif holder is None:
            return
        elif self._job is None and not holder.startswith("job "):
            self.link.send(Busy(reason=holder))


def _kind(order: StartRanks) -> type[NodeJob]:
    """What runs an order; imported for the first one, since a worker that waits stays small."""
    if order.script is not None:
        from llamaforge.worker.script_job import NodeScript

        return NodeScript
    from llamaforge.worker.node_job import NodeJob

    return NodeJob


def _tell_of_bug(done: asyncio.Future[None]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        log.error("what the coordinator asked for could not be done", exc_info=error)
