"""The worker's process: link, ranks, peer port and classic watcher, from start to SIGTERM.

    llamaforge worker run

It never imports torch; ranks do, in processes of their own.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import signal
from pathlib import Path

from llamaforge.errors import FleetError, UserError
from llamaforge.paths import writing_state
from llamaforge.spec.fleet import WorkerSettings
from llamaforge.wire.fleet_file import Lock
from llamaforge.wire.messages import (
    Busy,
    CannotStart,
    FromCoordinator,
    Hello,
    Idle,
    Leaving,
    Left,
    Rendezvous,
    StartRanks,
)
from llamaforge.worker import facts
from llamaforge.worker.busy import BusyLock
from llamaforge.worker.coordinator_http import CoordinatorHttp
from llamaforge.worker.link import Link, find_coordinator
from llamaforge.worker.memory import limit_memory, trim_memory
from llamaforge.worker.node_job import NodeJob
from llamaforge.worker.peer_port import Figures, PeerPort
from llamaforge.worker.rank_runner import RankRunner

END_SECONDS = 10.0
"""How long ranks that are ended, and transfers, may take; ranks are killed before."""
FLUSH_SECONDS = 5.0
"""How long ended ranks' last messages may take to reach the coordinator when the worker ends."""

log = logging.getLogger("llamaforge.worker")


class Supervisor:
    """One worker.

    Args:
        settings: how it runs.
        runner: starts ranks.
    """

    def __init__(self, settings: WorkerSettings, runner: RankRunner) -> None:
        self._settings, self._runner = settings, runner
        self._state = Path(settings.state_dir)
        self._busy = BusyLock()
        self._busy.on_change(self._busy_changed)
        self._link = Link(settings, hello=self._hello, heard=self._heard, abandoned=self._abandoned)
        self._peer = PeerPort(settings, self._figures)
        self._identity = ""
        self._session = secrets.token_hex(8)
        self._versions = facts.versions()
        self._job: NodeJob | None = None
        self._running: asyncio.Task[None] | None = None
        self._jobs = 0
        self._leaving = asyncio.Event()
        self._hurry = asyncio.Event()

    async def run(self) -> None:
        """Works until SIGTERM or SIGINT; the second one doesn't wait for a checkpoint.

        Raises:
            UserError: another worker uses the state folder, it can't be written, or no port is
                free.
        """
        limit_memory()
        lock = Lock(self._state / "worker.lock")
        if not lock.take():
            raise UserError(
                f"another worker uses {self._state}",
                hint="give this one a folder of its own with --state-dir",
            )
        try:
            with writing_state(self._state):
                self._identity = facts.identity(self._state)
            self._clear_leftovers()
            await self._peer.start(self._coordinator_host())
            trim_memory()
            await self._work()
        finally:
            await self._peer.stop()
            lock.free()

    async def _work(self) -> None:
        """Runs the parts until a signal; a part that breaks ends the worker."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_leave, number.name)
        parts = {
            asyncio.ensure_future(self._link.run()),
            asyncio.ensure_future(self._leaving.wait()),
        }
        if self._settings.master_addr is not None:
            parts.add(asyncio.ensure_future(self._watch_classic()))
        done, pending = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        await self._leave()
        self._link.send(Left())
        if self._link.connected:
            await self._link.flush(FLUSH_SECONDS)
        for part in pending:
            part.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for part in done:
            part.result()

    async def _watch_classic(self) -> None:
        from llamaforge.worker.classic import watch  # only workers that are set up for it pay

        await watch(self._settings, self._busy, log)

    # ── the fleet ─────────────────────────────────────────────────────────────────────────────

    def _hello(self, address: str) -> Hello:
        settings = self._settings
        return Hello(
            node=settings.name,
            identity=self._identity,
            session=self._session,
            cores=settings.cores or facts.cores(),
            memory=facts.memory(),
            versions=self._versions,
            capabilities=("ranks",) if settings.master_addr is None else ("ranks", "classic"),
            peer_port=self._peer.port,
            address=address,
            ranks=settings.ranks,
            busy=self._busy.holder or "",
        )

    def _heard(self, message: FromCoordinator) -> None:
        if isinstance(message, StartRanks):
            self._start(message)
        elif self._job is None or self._job.job_id != message.job_id:
            return
        elif isinstance(message, Rendezvous):
            self._job.rendezvous(message)
        else:
            self._job.stop(message.how, message.reason)

    def _start(self, order: StartRanks) -> None:
        target = self._link.target
        if target is None or self._leaving.is_set() or not self._busy.take(f"job {order.job.id}"):
            self._link.send(
                CannotStart(
                    job_id=order.job.id,
                    generation=order.generation,
                    kind="Busy",
                    message=self._busy.holder or "it is leaving",
                    busy=True,
                )
            )
            return
        self._jobs += 1
        self._job = NodeJob(
            order,
            node=self._settings.name,
            address=self._link.address,
            jobs=self._state / "jobs",
            cache=Path(self._settings.cache_dir),
            runner=self._runner,
            http=CoordinatorHttp(target.url, target.token, generation=order.generation),
            send=self._link.send,
        )
        self._running = asyncio.ensure_future(self._run_job(self._job))

    async def _run_job(self, job: NodeJob) -> None:
        try:
            await job.run()
        except OSError as why:
            log.warning("job %s: %s", job.job_id, why)
        finally:
            self._job = None
            self._busy.free()
            trim_memory()

    def _abandoned(self) -> None:
        """The coordinator has lost this worker's job: it gave up, or is a new one."""
        if self._job is not None:
            log.info("the coordinator knows nothing of job %s: ending it", self._job.job_id)
            self._job.kill()

    def _busy_changed(self) -> None:
        """Tells the coordinator about what it can't know: the end of a job, a classic one."""
        holder = self._busy.holder
        if holder is None and not self._leaving.is_set():
            self._link.send(Idle())
            log.info("waiting for a job")
        elif holder is None:
            return
        elif self._job is None and not holder.startswith("job "):
            self._link.send(Busy(reason=holder))

    # ── the end ───────────────────────────────────────────────────────────────────────────────

    def _told_to_leave(self, name: str) -> None:
        if self._leaving.is_set():
            self._hurry.set()
        log.info("leaving on %s", name)
        self._leaving.set()

    async def _leave(self) -> None:
        """Lets a job's ranks save a checkpoint; on a second signal, or after a while, ends them."""
        job, running = self._job, self._running
        if job is None or running is None or running.done():
            return
        self._link.send(Leaving(reason="its worker was told to end"))
        job.stop("checkpoint", "the worker was told to end")
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait(
            {running, hurry},
            timeout=self._settings.stop_seconds,
            return_when=asyncio.FIRST_COMPLETED,
        )
        hurry.cancel()
        if not running.done():
            job.stop("end", "it did not leave in time")
            await asyncio.wait({running}, timeout=END_SECONDS)
            running.cancel()  # it waits for a coordinator that does not answer
            await asyncio.wait({running})

    # ── small things ──────────────────────────────────────────────────────────────────────────

    def _coordinator_host(self) -> str | None:
        """Where the coordinator is, as far as is known when the worker starts."""
        try:
            return find_coordinator(self._settings).host
        except FleetError:
            return None

    def _clear_leftovers(self) -> None:
        """Removes folders of jobs that a power cut or a SIGKILL left behind."""
        for folder in (self._state / "jobs").glob("*"):
            if folder.suffix != ".kept":
                shutil.rmtree(folder, ignore_errors=True)

    def _figures(self) -> Figures:
        return Figures(
            connected=self._link.connected,
            busy=self._busy.holder or "",
            ranks=self._job.running if self._job else 0,
            jobs=self._jobs,
        )
