"""One process's way through a classic job: meet, compare, ship, train. Rank 0's and a peer's.

Torchrun has started the processes and keeps a store for them. Only rank 0 knows what was asked
for; it resolves the job, and everybody else gets arguments, data and model from it.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import msgspec
from torch.distributed import PrefixStore

from llamaforge.bundle.make import Prepared, make_bundle
from llamaforge.bundle.manifest import Manifest
from llamaforge.bundle.store import BlobStore
from llamaforge.errors import FleetError, LlamaForgeError, UserError
from llamaforge.spec.fleet import NETWORK_TIMEOUT
from llamaforge.spec.job import Job, JobSpec
from llamaforge.spec.ranks import Failed, Finished
from llamaforge.train import title
from llamaforge.train.classic import ship
from llamaforge.train.classic.exchange import PARTING, Exchange, Refused, as_failed
from llamaforge.train.classic.folder_report import FolderReporter
from llamaforge.train.classic.launch import Launch
from llamaforge.train.classic.leave import Leave
from llamaforge.train.classic.progress_file import ProgressFile
from llamaforge.train.classic.team import Team, gather, hello
from llamaforge.train.group import Group
from llamaforge.train.place import Folders, Place
from llamaforge.train.report import Reporter, Silent

SYMPTOMS = ("GroupBroken", "PeerFailed", "FleetError")
"""Errors that mostly follow from another process's."""
_ENGINE = "llamaforge.train.run"
_CAUSE_SECONDS = 3.0  # how long a symptom waits for its cause
_GONE_SECONDS = 1.0  # how long to wait for others where one is gone and the rest has noticed


@dataclass(frozen=True, kw_only=True)
class Here:
    """Where this process is."""

    launch: Launch
    node_name: str
    cache: Path
    """This node's cache: blobs, canonical and tokenised rows."""
    folder: Path
    """A private folder for the time of the attempt."""
    cores: int | None = None
    """Processor cores that this node may use; None for all that the process may run on."""
    address: str | None = None
    """IP address at which the other nodes reach this one; None for the one by route."""
    network_timeout: float = NETWORK_TIMEOUT
    """Seconds to wait for a peer that is silent but not gone."""
    progress: Path | None = None
    """Where this process's worker looks for its progress; None without a worker."""


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What rank 0 gives to all others."""

    job: Job
    manifest: Manifest


def attempt(here: Here, spec: JobSpec | None, leave: Leave) -> Finished | Failed:
    """Takes part in one attempt, from the first word to the last.

    Args:
        here: where this process is.
        spec: what was asked for, on rank 0; None on all others.
        leave: the wish to leave early.

    Returns:
        How it ended; a failure has been said to a person and to the other processes.
    """
    exchange: Exchange | None = None
    try:
        exchange = Exchange.open(here.launch)
        return _take_part(here, exchange, spec, leave)
    except Exception as error:  # noqa: BLE001 - whatever ends a process must reach the others
        if not isinstance(error, LlamaForgeError):
            traceback.print_exc()
        failed = _first_cause(exchange, _named(error, here)) if exchange else as_failed(error)
        _show(failed)
        if exchange is not None:
            exchange.part(patience=PARTING if failed.kind not in SYMPTOMS else _GONE_SECONDS)
        return failed


def exit_code(ended: Finished | Failed) -> int:
    """0 done or left early, 2 a mistake in what was asked for, 1 anything else."""
    if isinstance(ended, Finished):
        return 0
    return UserError.exit_code if ended.user_error else LlamaForgeError.exit_code


def _take_part(here: Here, exchange: Exchange, spec: JobSpec | None, leave: Leave) -> Finished:
    launch = here.launch
    _refuse_restarts(launch)
    mine = hello(
        launch,
        here.node_name,
        os.environ,
        cores=here.cores,
        address=here.address,
        network_timeout=here.network_timeout,
    )
    team = gather(exchange, mine, os.environ)
    store = BlobStore(here.cache / "blobs")
    prepared = None
    if spec is not None:
        prepared = _prepare(spec, store, here, team)
        exchange.say("work", Work(job=prepared.job, manifest=prepared.manifest))
    import_module(_ENGINE)  # takes seconds; on peers it goes on while rank 0 reads the dataset
    work = exchange.hear("work", Work)
    bundle = ship.deliver(
        exchange, team, work.manifest, store, folder=here.folder / "bundle", tell=_say
    )
    group = Group.form(
        PrefixStore("ranks", exchange.store),
        rank=launch.rank,
        world_size=launch.world_size,
        address=team.addresses[launch.node],
        timeout=timedelta(seconds=team.network_timeout),
    )
    title.show(work.job.id, launch.rank, launch.world_size)
    return _train(here, team, work.job, prepared, bundle, group, leave)


def _refuse_restarts(launch: Launch) -> None:
    """A lost node ends the attempt: the workers have left, and nobody would answer a restart."""
    if launch.attempt > 0 and launch.nodes > 1:
        raise UserError(
            f"torchrun restarted the processes on this node ({launch.attempt} times so far), but "
            "the other nodes have left",
            hint="run the command again without --max-restarts, and with --auto-resume",
        )


def _prepare(spec: JobSpec, store: BlobStore, here: Here, team: Team) -> Prepared:
    """Resolves the job on rank 0 and says what will be trained."""
    processes = here.launch.world_size
    prepared = make_bundle(
        spec,
        store,
        processes=processes,
        per_process=True,
        threads=team.threads,
        cache=here.cache,
    )
    for note in prepared.notes:
        _say(note)
    job = prepared.job
    nodes = ", ".join(
        f"{name} ({count})" for name, count in zip(team.names, team.local_ranks, strict=True)
    )
    _say(f"job {job.id}: {processes} processes on {nodes}, {job.threads} threads each")
    _say(f"{rows_per_step(job, processes)}; {job.rows} rows, {job.total_steps} steps")
    return prepared


def rows_per_step(job: Job, processes: int) -> str:
    """How many rows a step has, and where the number comes from."""
    each = job.spec.batch_size
    if job.rows_per_step == each * processes:
        return f"{job.rows_per_step} rows per step = {each} per process x {processes} processes"
    return f"{job.rows_per_step} rows per step, kept from the checkpoint"


def _train(
    here: Here,
    team: Team,
    job: Job,
    prepared: Prepared | None,
    bundle: Path,
    group: Group,
    leave: Leave,
) -> Finished:
    from llamaforge.train.run import train

    launch = here.launch
    resume = bundle / "resume"
    folder = prepared.output_dir if prepared else here.folder / "artifacts"
    keeper = None
    if prepared is not None:
        resumed = prepared.resume.step if prepared.resume else None
        keeper = FolderReporter(folder, job, resumed=resumed, tell=_say)
    reporter: Reporter = keeper or (ProgressFile(here.progress) if here.progress else Silent())
    leave.training = True
    try:
        outcome = train(
            job,
            place=Place(
                generation=launch.attempt + 1,
                rank=launch.rank,
                world_size=launch.world_size,
                local_rank=launch.local_rank,
                node=team.names[launch.node],
                address=team.addresses[launch.node],
            ),
            folders=Folders(
                bundle=bundle,
                checkpoints=prepared.checkpoint_dir if prepared else here.folder / "checkpoints",
                artifacts=folder,
                cache=here.cache,
                resume=resume if resume.is_dir() else None,
            ),
            group=group,
            reporter=reporter,
            stop=leave,
        )
        if keeper is not None:
            keeper.finish(outcome.proof)
            _say_end(folder, outcome.stopped, outcome.proof)
    finally:
        if keeper is not None:
            keeper.close()
    return Finished(artifacts=str(folder), proof=outcome.proof, stopped=outcome.stopped)


def _say_end(folder: Path, stopped: bool, proof: dict[str, object]) -> None:
    step = f"step {proof['steps']} of {proof['total_steps']}"
    if stopped:
        _say(f"left early after {step}; the same command with --auto-resume continues there")
    else:
        _say(f"done after {step}: everything is in {folder}")


def _named(error: Exception, here: Here) -> Exception:
    """The error with its node's name, where it does not come from somewhere else."""
    if here.launch.rank == 0 or isinstance(error, Refused):
        return error
    failed = as_failed(error)
    return Refused(
        msgspec.structs.replace(failed, message=f"node {here.node_name}: {failed.message}")
    )


def _first_cause(exchange: Exchange, error: Exception) -> Failed:
    """Why the attempt ended: for the loss of a peer, what that peer said, if it comes to it."""
    deadline = time.monotonic() + _CAUSE_SECONDS
    failed = error.failed if isinstance(error, Refused) else as_failed(error)
    while failed.kind in SYMPTOMS and time.monotonic() < deadline:
        try:
            if (said := exchange.refusal()) is not None:
                return said
        except FleetError:  # the store is gone: nobody can say anything any more
            break
        time.sleep(0.1)
    return exchange.refuse(error)


def _say(text: str) -> None:
    print(text, flush=True)


def _show(failed: Failed) -> None:
    print(f"error: {failed.message}", file=sys.stderr)
    if failed.hint:
        print("\n".join(f"  {line}" for line in failed.hint.splitlines()), file=sys.stderr)
    sys.stderr.flush()
