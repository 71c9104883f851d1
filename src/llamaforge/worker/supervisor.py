"""The worker's process: link, ranks, peer port and classic watcher, from start to SIGTERM.

    llamaforge worker run

It never imports torch; ranks do, in processes of their own. Under systemd it tells the service
manager what it is doing and that its event loop turns, and SIGHUP makes it read its settings again.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import signal
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from llamaforge import landlock
from llamaforge.errors import FleetError, LlamaForgeError, Occupied, UserError
from llamaforge.paths import writing_state
from llamaforge.spec.fleet import WorkerSettings, host_and_port
from llamaforge.spec.ranks import Progress
from llamaforge.systemd import unit
from llamaforge.systemd.notify import Notify
from llamaforge.systemd.restarts import WINDOW, Restarts
from llamaforge.wire.fleet_file import Lock
from llamaforge.worker import facts, self_check, status
from llamaforge.worker.busy import BusyLock
from llamaforge.worker.classic.way import ClassicWay
from llamaforge.worker.configuration import Configuration
from llamaforge.worker.ending import end
from llamaforge.worker.enrol import find_coordinator
from llamaforge.worker.exchange import Exchange
from llamaforge.worker.fleet_jobs import FleetJobs
from llamaforge.worker.memory import limit_memory, trim_memory
from llamaforge.worker.orphans import Orphans, adopt
from llamaforge.worker.peer.port import Figures, PeerPort
from llamaforge.worker.progress_log import ProgressLog
from llamaforge.worker.rank_runner import RankRunner

BEAT_SECONDS = 1.0
"""Between two looks at what to tell: the status line, the watchdog, a wish to restart."""
SPARE_SECONDS = 20.0
"""What leaving may take beyond the time that ranks have for a checkpoint: ending those that did not
leave, and telling the coordinator."""

log = logging.getLogger("llamaforge.worker")


class Supervisor:
    """One worker.

    Args:
        configuration: how it runs.
        runner: starts ranks.
        notify: the service manager.
        runtime: the unit's runtime folder; None without systemd.
    """

    def __init__(
        self,
        configuration: Configuration,
        runner: RankRunner,
        *,
        notify: Notify | None = None,
        runtime: Path | None = None,
    ) -> None:
        self._configuration, self._runner = configuration, runner
        self._notify, self._runtime = notify or Notify(), runtime
        self._restarts = Restarts(runtime)
        self._busy = BusyLock()
        self._exchange = Exchange(lambda: self._settings)
        self._peer = PeerPort(
            self._settings, self._figures, self._coordinator_host, self._exchange.secure
        )
        self._classic = ClassicWay(configuration, self._busy)
        self._told = ProgressLog()
        self._orphans = Orphans()
        self._jobs: FleetJobs | None = None
        self._versions = facts.versions()
        self._unconfined = landlock.why_not()
        self._trouble = ""
        self._leaving_because = ""
        self._leaving = asyncio.Event()
        self._hurry = asyncio.Event()

    @property
    def _settings(self) -> WorkerSettings:
        return self._configuration.settings

    async def run(self) -> None:
        """Works until SIGTERM or SIGINT; the second one doesn't wait for a checkpoint.

        Raises:
            Occupied: another worker uses the state folder, it can't be written, or no port is
                free.
            UserError: something that only a person can change keeps it from working.
        """
        limit_memory()
        adopt()
        pause = self._restarts.begin()
        state = Path(self._settings.state_dir)
        lock = Lock(state / "worker.lock")
        if not lock.take():
            raise Occupied(
                f"another worker uses {state}",
                hint="give this one a folder of its own with --state-dir",
            )
        if self._unconfined:
            log.warning("ranks and scripts run unconfined here: %s", self._unconfined)
        try:
            with writing_state(state):
                identity = facts.identity(state)
            await self._peer.start()
            self._jobs = FleetJobs(
                lambda: self._settings,
                self._busy,
                self._runner,
                identity=identity,
                versions=self._versions,
                peer_port=self._peer.port,
                exchange=self._exchange,
            )
            self._jobs.clear_leftovers()
            trim_memory()
            await self._live(self._jobs, pause)
            self._restarts.forget()
        finally:
            await self._peer.stop()
            lock.free()

    async def _live(self, jobs: FleetJobs, pause: float) -> None:
        """Listens to signals and systemd, and works once nothing speaks against it."""
        self._listen()
        heart = asyncio.ensure_future(self._beat())
        self._notify.ready()
        try:
            await self._until_leaving(self._fit(pause))
            if not self._leaving.is_set():
                await self._work(jobs, heart)
        finally:
            await end(heart)

    async def _work(self, jobs: FleetJobs, heart: asyncio.Future[None]) -> None:
        """Runs the parts until a signal; a part that breaks ends the worker."""
        classic = asyncio.ensure_future(self._classic.run())
        parts: set[asyncio.Future[Any]] = {
            heart,
            classic,
            asyncio.ensure_future(jobs.link.run()),
            asyncio.ensure_future(self._leaving.wait()),
        }
        done, pending = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        await jobs.leave(self._hurry)
        in_a_job = self._busy.holder is not None  # a classic one: it saves while it is ended
        ending = pending - {heart}
        await asyncio.gather(*(end(p, gently=in_a_job and p is classic) for p in ending))
        for part in done:
            part.result()

    # ── before work ───────────────────────────────────────────────────────────────────────────

    async def _fit(self, pause: float) -> None:
        """Waits out the pause after crashes, and then until the machine is fit for work.

        Raises:
            UserError: it never will be without a person.
        """
        if pause > 0:
            crashes = self._restarts.crashes
            self._say_trouble(
                f"ended without order {crashes} times in {WINDOW / 60:.0f} min; "
                f"goes on in {pause:.0f} s"
            )
            await asyncio.sleep(pause)
        hanging: self_check.Hanging = {}
        while (trouble := await self_check.look(self._settings, hanging)) is not None:
            if trouble.final:
                raise UserError(trouble.text, hint=trouble.hint)
            self._say_trouble(str(trouble))
            await asyncio.sleep(self_check.AGAIN_SECONDS)
        if self._trouble:
            log.info("nothing is missing any more")
        self._trouble = ""

    def _say_trouble(self, text: str) -> None:
        if text != self._trouble:
            log.warning("not ready: %s", text)
        self._trouble = text

    async def _until_leaving(self, work: Awaitable[None]) -> None:
        """Waits for `work`, or cancels it when the worker is told to leave."""
        doing = asyncio.ensure_future(work)
        told = asyncio.ensure_future(self._leaving.wait())
        await asyncio.wait({doing, told}, return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if doing.done():
            doing.result()
        await end(doing)

    # ── signals and systemd ───────────────────────────────────────────────────────────────────

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_leave, f"told to by {number.name}")
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _told_to_leave(self, why: str) -> None:
        if self._leaving.is_set():
            self._hurry.set()
        log.info("leaving: %s", why)
        self._leaving_because = self._leaving_because or why
        self._leaving.set()
        # One that can't leave says where it stands, and ends; systemd would only kill it.
        seconds = self._settings.stop_seconds + SPARE_SECONDS
        faulthandler.dump_traceback_later(seconds, exit=True)
        self._notify.stopping(seconds)
        self._notify.status(self.status)

    def _reload(self) -> None:
        """Reads the settings again; wrong ones are told and change nothing."""
        self._notify.reloading()
        try:
            change = self._configuration.reload()
        except LlamaForgeError as error:
            log.error("the settings stay as they were: %s", error)
        else:
            log.info("settings read again; %s", change)
            self._runner.reconfigure(self._settings, self._configuration.exports)
            self._peer.reconfigure(self._settings)
            self._classic.reconfigure()
        self._notify.ready()

    async def _beat(self) -> None:
        """Tells systemd how things are, for as long as the event loop turns."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        calm = False
        while True:
            self._notify.status(self.status)
            self._notify.alive()
            self._told.see(self._progress)
            if not calm and loop.time() - begin > WINDOW:
                calm = True
                self._restarts.forget()
            if self._busy.holder is None:
                self._orphans.end()
                if self._wishes_restart():
                    self._told_to_leave("an update asks for a restart")
            await asyncio.sleep(BEAT_SECONDS)

    def _wishes_restart(self) -> bool:
        wish = self._runtime / unit.RESTART_WISH if self._runtime else None
        if wish is None or not wish.exists():
            return False
        try:
            wish.unlink()
        except OSError as why:
            log.warning("%s can't be removed (%s): no restart, it would never end", wish, why)
            self._runtime = None
            return False
        return True

    # ── what others are told ──────────────────────────────────────────────────────────────────

    @property
    def status(self) -> str:
        """What the worker is doing, in one line."""
        settings, jobs = self._settings, self._jobs
        link = jobs.link if jobs else None
        return status.line(
            status.Situation(
                leaving=self._leaving_because,
                trouble=self._trouble,
                busy=self._busy.holder or "",
                fetching=self._exchange.fetching,
                progress=self._progress,
                classic=f"{settings.master_addr}:{settings.master_port}"
                if settings.master_addr
                else "",
                coordinator=link.said if link else "",
                connected=link.connected if link else False,
                known=settings.coordinator is not None or bool(link and link.target),
                unconfined=bool(self._unconfined),
            )
        )

    @property
    def _progress(self) -> Progress | None:
        return (self._jobs.progress if self._jobs else None) or self._classic.progress

    def _coordinator_host(self) -> str | None:
        """Where the coordinator is, as far as is known when the worker starts; needs no token."""
        if self._settings.coordinator is not None:
            return host_and_port(self._settings.coordinator)[0]
        try:
            return find_coordinator(self._settings).host
        except FleetError:
            return None

    def _figures(self) -> Figures:
        jobs, progress = self._jobs, self._progress
        return Figures(
            connected=jobs.link.connected if jobs else False,
            busy=self._busy.holder or "",
            ranks=jobs.ranks if jobs else 0,
            jobs=(jobs.count if jobs else 0) + self._classic.count,
            status=self.status,
            ready=not (self._trouble or self._leaving_because),
            job=progress.job if progress else "",
            generation=progress.generation if progress else 0,
            step=progress.step if progress else 0,
            total_steps=progress.total_steps if progress else 0,
            versions=self._versions,
            confined=not self._unconfined,
        )
