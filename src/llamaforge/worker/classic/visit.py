"""One classic job after the other: from the claim in torchrun's store to the end of the agent."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

from llamaforge.spec import classic
from llamaforge.spec.fleet import WorkerSettings
from llamaforge.spec.ranks import Failed, Finished, Progress
from llamaforge.systemd import journal
from llamaforge.worker.classic.agent import (
    Agent,
    Seat,
    Transcript,
    command,
    ending,
    environment,
    progress_of,
    verdict,
)
from llamaforge.worker.classic.outputs import RankOutputs
from llamaforge.worker.classic.store_client import NoStore, StoreClient
from llamaforge.worker.classic.store_probe import Kind, Sighting, look
from llamaforge.worker.confine import Confinement
from llamaforge.worker.oom_kills import OomKills

GUARD_INTERVAL = 2.0
"""Seconds between two looks while a job runs."""
GONE_AFTER = 15.0
"""Seconds without the store after which a running attempt is over: its host has no power, say."""
STALLS_TOLD = 5
"""Looks that may find a rendezvous unfinished, though all have joined, before it is told."""
TIMEOUT = 2.0
"""Seconds for one exchange with the store."""

_THERE = (Kind.WAITING, Kind.CLAIMED, Kind.RUNNING, Kind.STALLED)

Look = Callable[[], Awaitable[Sighting]]


def folder_of(settings: WorkerSettings) -> Path:
    """Where the files of running attempts are; absolute, since agents run in a folder of theirs."""
    return Path(settings.state_dir).absolute() / "classic"


def look_with(settings: WorkerSettings) -> Look:
    """How to look at the store that these settings name; `master_addr` is set."""
    host = settings.master_addr
    assert host is not None
    return lambda: look(
        host,
        settings.master_port,
        node_rank=settings.node_rank,
        world_size=settings.world_size,
        timeout=TIMEOUT,
    )


class Visit:
    """Takes part in one classic job after the other; call it when a store waits.

    Args:
        settings: of this worker.
        log: for people.
        exports: what the settings file adds to the environment of the ranks.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        log: logging.Logger,
        exports: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._log = log
        self._exports = exports or {}
        self._look = look_with(settings)
        self._folder: Path | None = None
        self.attended = 0
        """Jobs that it has taken part in."""

    @property
    def running(self) -> bool:
        """Whether it takes part in a job now."""
        return self._folder is not None

    @property
    def progress(self) -> Progress | None:
        """Where the running job is, as the first rank of this node has left it."""
        return progress_of(self._folder, 0) if self._folder else None

    async def __call__(self) -> None:
        """From the claim to the end of the torchrun agent; says how it went."""
        parent = folder_of(self._settings)
        try:
            parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix="job-", dir=parent))
        except OSError as error:
            self._log.error("classic: no folder for the job's files: %s", error)
            return
        self._folder = folder
        try:
            seat = await self._claim(folder)
            if seat is not None:
                await self._attend(seat)
        except OSError as error:
            self._log.warning("classic: the attempt failed: %s", error)
        finally:
            self._folder = None
            shutil.rmtree(folder, ignore_errors=True)

    async def _claim(self, folder: Path) -> Seat | None:
        """Takes this node's rank in the store; None when somebody else was faster."""
        settings = self._settings
        assert settings.master_addr is not None
        try:
            store = await StoreClient.open(
                settings.master_addr, settings.master_port, timeout=TIMEOUT
            )
        except NoStore:
            return None
        async with store:
            if await store.add(classic.claim(settings.node_rank), 1) != 1:
                self._log.info("classic: another worker has joined as node %d", settings.node_rank)
                return None
            return Seat(
                store_address=store.store_address,
                store_port=settings.master_port,
                local_address=store.local_address,
                folder=folder,
            )

    async def _attend(self, seat: Seat) -> None:
        """Runs the agent beside a guard that ends it when the coordinator is gone."""
        self.attended += 1
        output = await RankOutputs.open(seat.folder, self._settings.nproc_per_node, self._printed)
        given = environment(self._settings, os.environ, self._exports)
        confinement = Confinement(self._settings, given)
        if scratch := confinement.scratch:
            given["TMPDIR"] = str(scratch)
        agent = await Agent.start(
            command(self._settings, seat),
            given,
            folder=seat.folder,
            stop_seconds=self._settings.stop_seconds,
            confinement=confinement,
        )
        oom_kills = OomKills()
        guard = asyncio.create_task(self._guard(agent))
        transcript = Transcript(lambda line: self._log.info("classic| %s", line))
        run = asyncio.create_task(agent.run(transcript))
        try:
            code = await asyncio.shield(run)
        except asyncio.CancelledError:
            self._log.info("classic: leaving the job at its next step")
            await agent.stop()
            await run
            raise
        finally:
            guard.cancel()
            agent.kill()
            await output.close()
            transcript.end(explained=verdict(seat.folder) is not None)
        cause = None if guard.cancelled() or not guard.done() else guard.result()
        memory = oom_kills.why()
        short = f"a rank was killed for want of memory: {memory}" if memory else ""
        await self._conclude(seat, code, cause or short or ending(code, agent.last_lines))

    def _printed(self, local_rank: int, line: str) -> None:
        """One line of a rank's output goes to the log, with where the job is."""
        where = progress_of(self._folder, local_rank) if self._folder else None
        known = {} if where is None else msgspec.structs.asdict(where)
        names = ("job", "generation", "rank", "step")
        fields = journal.fields(**{name: known.get(name) for name in names})
        number = where.rank if where else f"{local_rank} of this node"
        self._log.info("classic| rank %s: %s", number, line, extra=fields)

    async def _guard(self, agent: Agent) -> str:
        """Ends an agent whose store is gone or needs another number of nodes; returns why."""
        seen_at = time.monotonic()
        stalls = 0
        while True:
            await asyncio.sleep(GUARD_INTERVAL)
            seen = await self._look()
            if seen.kind is Kind.STALLED:
                stalls += 1
                if stalls == STALLS_TOLD:
                    self._log.warning("classic: %s", seen.text)
            if seen.kind in _THERE:
                seen_at = time.monotonic()
            elif seen.kind is Kind.OTHER_SIZE or time.monotonic() - seen_at > GONE_AFTER:
                agent.kill()
                return seen.text

    async def _conclude(self, seat: Seat, code: int, otherwise: str) -> None:
        """Says how the job ended here; a failure also to the coordinator, while it listens."""
        said = verdict(seat.folder)
        if isinstance(said, Finished) and code == 0:
            word = "left early after a checkpoint" if said.stopped else "done"
            self._log.info("classic: %s; waiting for the next", word)
            return
        failed = said if isinstance(said, Failed) else Failed(kind="FleetError", message=otherwise)
        self._log.warning("classic: the attempt failed: %s; waiting for the next", failed.message)
        await self._tell_coordinator(seat, failed)

    async def _tell_coordinator(self, seat: Seat, failed: Failed) -> None:
        message = f"node {self._settings.name}: {failed.message}"
        word = msgspec.json.encode(msgspec.structs.replace(failed, message=message))
        try:
            async with await StoreClient.open(
                seat.store_address, seat.store_port, timeout=TIMEOUT
            ) as store:
                await store.set_first(classic.raw_refusal(), word)
        except (OSError, NoStore):
            self._log.debug("classic: the coordinator's torchrun has ended already")
