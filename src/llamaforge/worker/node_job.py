"""One generation of a job on this node: fetch, lay out, run the ranks, send results, clean up."""

from __future__ import annotations

import asyncio
import errno
import logging
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from llamaforge.bundle import resume
from llamaforge.bundle.manifest import Entry
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import FleetError, LlamaForgeError, NoSpace, UserError
from llamaforge.spec import ranks
from llamaforge.spec.fleet import NETWORK_TIMEOUT
from llamaforge.spec.ranks import Assignment
from llamaforge.systemd import journal
from llamaforge.wire.messages import (
    Beat,
    CannotStart,
    FromWorker,
    RankExited,
    RankLog,
    RankSaid,
    Rendezvous,
    Stacks,
    StartRanks,
)
from llamaforge.worker import stacks
from llamaforge.worker.coordinator_http import CoordinatorHttp
from llamaforge.worker.oom_kills import OomKills
from llamaforge.worker.pulse import Pulse
from llamaforge.worker.rank_runner import Exit, Rank, RankRunner
from llamaforge.worker.uploads import Uploads

KILL_SECONDS = 5.0
"""Between SIGTERM and SIGKILL when ranks are ended."""
BEAT_SECONDS = 1.0
"""Between two looks at whether the ranks move."""
STORE_SECONDS = 300.0
"""How long rank 0 may take to open the store at which all meet: it imports torch before that."""

log = logging.getLogger("llamaforge.worker")


class NodeJob:
    """Runs what one `StartRanks` orders.

    Args:
        order: the coordinator's message.
        node: this node's name.
        address: IP address at which the other nodes reach this one.
        jobs: the folder below which the job gets one of its own.
        cache: the node's cache: blobs and tokenised rows.
        runner: starts ranks.
        http: transfers with the coordinator.
        send: tells the coordinator something.
        network_timeout: seconds that a rank waits for another that is silent but not gone.
    """

    def __init__(
        self,
        order: StartRanks,
        *,
        node: str,
        address: str,
        jobs: Path,
        cache: Path,
        runner: RankRunner,
        http: CoordinatorHttp,
        send: Callable[[FromWorker], None],
        network_timeout: float = NETWORK_TIMEOUT,
    ) -> None:
        self._network_timeout = network_timeout
        self.progress: ranks.Progress | None = None
        """Where the job is; None until its ranks have met."""
        self._order, self._node, self._address = order, node, address
        self._folder = jobs / f"{order.job_id}.{order.generation}"
        self._cache, self._runner, self._http, self._send = cache, runner, http, send
        self._store = BlobStore(cache / "blobs")
        self._uploads = Uploads(order.job_id, order.generation, http, send)
        self._fetched: tuple[Entry, ...] = ()
        self._ranks: dict[int, Rank] = {}
        self._oom_kills = OomKills()
        self._pulse = Pulse(self._folder)
        self._store_at: ranks.Rendezvous | None = None
        self._stopping = ""
        self._preparing: asyncio.Task[None] | None = None
        self._killing: asyncio.TimerHandle | None = None
        self._mute: asyncio.TimerHandle | None = None

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self._order.job_id

    @property
    def generation(self) -> int:
        """The generation's number."""
        return self._order.generation

    def fields(self, rank: int | None = None) -> dict[str, dict[str, str]]:
        """What a line in the journal says about its job besides the text."""
        step = self.progress.step if self.progress else None
        return journal.fields(
            job=self.job_id, generation=self._order.generation, rank=rank, step=step
        )

    @property
    def running(self) -> int:
        """Ranks that run now."""
        return len(self._ranks)

    async def run(self) -> None:
        """From order to clean-up. Failures are told to the coordinator, not raised."""
        try:
            async with self._http:
                if await self._prepared():
                    await self._run_ranks()
                    await self._uploads.finish()
        finally:
            for rank in self._ranks.values():
                rank.kill()
            for timer in (self._killing, self._mute):
                if timer is not None:
                    timer.cancel()
            await self._clean_up()

    def rendezvous(self, message: Rendezvous) -> None:
        """Tells the ranks where the store is; those that start later hear of it then."""
        self._store_at = ranks.Rendezvous(host=message.host, port=message.port)
        for number, rank in self._ranks.items():
            if number != 0:
                rank.say(self._store_at)

    def stop(self, how: Literal["checkpoint", "end"], reason: str) -> None:
        """Asks the ranks to save a checkpoint and leave, or ends them."""
        log.info("job %s: %s", self.job_id, reason, extra=self.fields())
        self._stopping = reason
        if self._preparing is not None:
            self._preparing.cancel()
        for rank in self._ranks.values():
            if how == "checkpoint":
                rank.say(ranks.Stop(reason=reason))
            else:
                rank.terminate()
        if how == "end" and self._killing is None:
            loop = asyncio.get_running_loop()
            self._killing = loop.call_later(KILL_SECONDS, self.kill)

    def kill(self) -> None:
        """Ends the ranks at once."""
        self._stopping = self._stopping or "killed"
        if self._preparing is not None:
            self._preparing.cancel()
        for rank in self._ranks.values():
            rank.kill()

    async def tell_stacks(self) -> None:
        """Tells the coordinator where each rank stands."""
        found = await stacks.gather(self._folder, self._pids)
        self._send(Stacks(job_id=self.job_id, generation=self._order.generation, ranks=found))

    @property
    def _pids(self) -> dict[int, int]:
        return {number: rank.pid for number, rank in self._ranks.items()}

    # ── before the ranks ──────────────────────────────────────────────────────────────────────

    async def _prepared(self) -> bool:
        """Whether the bundle is laid out; if not, the coordinator has been told why."""
        self._preparing = asyncio.ensure_future(self._prepare())
        why: LlamaForgeError
        try:
            await self._preparing
            return True
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            why = FleetError(f"stopped before its ranks had started: {self._stopping}")
        except LlamaForgeError as error:
            why = error
        except OSError as error:
            why = self._refused(error)
        finally:
            self._preparing = None
        self._cannot_start(why)
        return False

    async def _prepare(self) -> None:
        (self._folder / "work").mkdir(parents=True, exist_ok=True)
        self._fetched = await self._http.fetch_missing(self._order.manifest, self._store)
        size = sum(entry.size for entry in self._fetched) / 1e6
        log.info("job %s: %.1f MB fetched", self.job_id, size, extra=self.fields())
        await self._lay_out()

    async def _lay_out(self) -> None:
        bundle = self._folder / "bundle"
        await asyncio.to_thread(self._store.lay_out, self._order.manifest, bundle)

    def _refused(self, error: OSError) -> LlamaForgeError:
        """A disk of this node refuses the job's files."""
        where = error.filename or f"{self._cache} or {self._folder}"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return (NoSpace if full else LlamaForgeError)(
            f"the job's files can't be kept in {where}: {error.strerror or error}",
            hint="make room there, or choose other places with the worker's --cache-dir and "
            "--state-dir",
        )

    def _cannot_start(self, why: LlamaForgeError) -> None:
        log.warning("job %s can't start here: %s", self.job_id, why, extra=self.fields())
        self._send(
            CannotStart(
                job_id=self.job_id,
                generation=self._order.generation,
                kind=type(why).__name__,
                message=why.message,
                hint=why.hint,
                user_error=isinstance(why, UserError),
            )
        )

    # ── the ranks ─────────────────────────────────────────────────────────────────────────────

    async def _run_ranks(self) -> None:
        numbers = range(self._order.first_rank, self._order.first_rank + self._order.count)
        try:
            for number in numbers:
                await self._start(number)
        except OSError as why:
            self._cannot_start(self._refused(why))
            self.kill()
        else:
            said = f"job {self.job_id}: ranks {numbers[0]} to {numbers[-1]} run"
            log.info(said, extra=self.fields())
        beating = asyncio.ensure_future(self._beat())
        try:
            ends = (self._wait(number, rank) for number, rank in self._ranks.items())
            await asyncio.gather(*ends)
        finally:
            beating.cancel()

    async def _beat(self) -> None:
        """Tells the coordinator, for as long as ranks move, that they do."""
        told = -1
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            step = self.progress.step if self.progress else None
            if step is None:
                continue  # the ranks have not met: how long that takes says nothing of a step
            if self._pulse.moved(self._pids) or step != told:
                generation = self._order.generation
                self._send(Beat(job_id=self.job_id, generation=generation, step=step))
                told = step

    async def _start(self, number: int) -> None:
        rank = await self._runner.start(
            self._assignment(number),
            self._folder,
            on_report=partial(self._reported, number),
            on_line=partial(self._printed, number),
        )
        self._ranks[number] = rank
        if number == 0:
            loop = asyncio.get_running_loop()
            self._mute = loop.call_later(STORE_SECONDS, self._opens_no_store)
        if self._store_at is not None and number != 0:
            rank.say(self._store_at)
        if self._stopping:
            rank.terminate()

    def _assignment(self, number: int) -> Assignment:
        order = self._order
        assert order.job is not None
        return Assignment(
            job=order.job,
            generation=order.generation,
            rank=number,
            world_size=order.world_size,
            local_rank=number - order.first_rank,
            node=self._node,
            address=self._address,
            bundle=str(self._folder / "bundle"),
            workdir=str(self._folder / "work"),
            cache_dir=str(self._cache / "tokens"),
            network_timeout=self._network_timeout,
        )

    async def _wait(self, number: int, rank: Rank) -> None:
        end = await self._end_of(number, rank)
        memory = self._short_of_memory(end)
        how = f"exit code {end.code}" if end.signal is None else f"signal {end.signal}"
        said = f"job {self.job_id}: rank {number} ended ({how})"
        log.info(said, extra=self.fields(rank=number))
        if memory:
            said = f"job {self.job_id}: rank {number} was killed for want of memory: {memory}"
            log.error(said, extra=self.fields(rank=number))
        self._send(
            RankExited(
                job_id=self.job_id,
                generation=self._order.generation,
                rank=number,
                code=end.code,
                signal=end.signal,
                ordered=end.ordered,
                last_lines=end.last_lines,
                memory=memory,
            )
        )

    async def _end_of(self, number: int, rank: Rank) -> Exit:  # noqa: ARG002
        """Waits until a rank is gone."""
        return await rank.wait()

    def _short_of_memory(self, end: Exit) -> str:
        killed = end.signal == signal.SIGKILL and not end.ordered
        return self._oom_kills.why() if killed else ""

    def _opens_no_store(self) -> None:
        """Rank 0 hangs: all others would wait for ever."""
        what = f"it did not open the generation's store within {STORE_SECONDS:g} s"
        self._reported(0, ranks.Failed(kind=FleetError.__name__, message=what))
        self._ranks[0].kill()

    def _reported(self, number: int, report: ranks.FromRank) -> None:
        if isinstance(report, ranks.Progress):  # told to this worker only
            self.progress = report
            return
        self._send(
            RankSaid(
                job_id=self.job_id,
                generation=self._order.generation,
                rank=number,
                report=report,
            )
        )
        if isinstance(report, ranks.StoreReady) and self._mute is not None:
            self._mute.cancel()
        elif isinstance(report, ranks.CheckpointDone) and number == 0:
            self._uploads.checkpoint(Path(report.path))
        elif isinstance(report, ranks.Finished) and number == 0:
            self._uploads.artifacts(Path(report.artifacts))

    def _printed(self, number: int, line: str) -> None:
        log.info("rank %d: %s", number, line, extra=self.fields(rank=number))
        self._send(RankLog(job_id=self.job_id, rank=number, line=line))

    # ── after the ranks ───────────────────────────────────────────────────────────────────────

    async def _clean_up(self) -> None:
        """Removes the job's folder, unless it holds something that did not reach its place.

        A checkpoint that was fetched to go on from goes too: each generation has another one, and
        they would fill the cache.
        """
        for entry in self._fetched:
            if entry.path.startswith(f"{resume.FOLDER}/"):
                self._store.forget(entry.sha256)
        if self._uploads.failed or self._uploads.unfinished:
            kept = self._folder.with_name(f"{self._folder.name}.kept")
            shutil.rmtree(kept, ignore_errors=True)
            self._folder.rename(kept)
            log.warning("what was not sent is kept in %s", kept)
            return
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
