"""`llamaforge worker run`: the service on a node, in the foreground."""

from __future__ import annotations

import asyncio
import faulthandler
import os
from pathlib import Path
from typing import Any

import click

from llamaforge import log
from llamaforge.cli import worker_install
from llamaforge.systemd.notify import Notify
from llamaforge.worker.configuration import Configuration


@click.group("worker")
def command() -> None:
    """Run this machine's worker, or install it as a service."""


command.add_command(worker_install.command)


@command.command("run")
@click.option(
    "--config", metavar="FILE", help="Settings file; a service's is /etc/llamaforge/worker.conf."
)
@click.option("--fleet", metavar="FILE", help="Fleet file of the coordinator.")
@click.option("--coordinator", metavar="HOST:PORT", help="Coordinator, over the fleet file's.")
@click.option("--token-file", metavar="FILE", help="File with the fleet's token.")
@click.option("--name", help="The node's name; by default the host's.")
@click.option("--address", metavar="IP", help="Where other nodes reach this one.")
@click.option("--ranks", type=int, metavar="N", help="Ranks per job; by default by the cores.")
@click.option("--cores", type=int, metavar="N", help="Processor cores to use; by default all.")
@click.option("--state-dir", metavar="DIR", help="Identity and running jobs.")
@click.option("--cache-dir", metavar="DIR", help="Blobs and tokenised rows; may be shared.")
@click.option("--peer-port", type=int, metavar="PORT", help="First port for health and metrics.")
@click.option("--peer-host", metavar="IP", help="Address that this port binds to.")
@click.option("--allow", metavar="LIST", help="Who else may connect to it: addresses, networks.")
@click.option("--network-timeout", type=float, metavar="S", help="Patience with silent ranks.")
@click.option("--stop-seconds", type=float, metavar="S", help="Time to checkpoint and leave.")
@click.option("--master-addr", metavar="HOST", help="Classic way: wait for torchrun there.")
@click.option("--master-port", type=int, metavar="PORT", help="Classic way: its port.")
@click.option("--node-rank", type=int, metavar="N", help="Classic way: this node's rank.")
@click.option("--world-size", type=int, metavar="N", help="Classic way: number of nodes.")
@click.option("--nproc-per-node", type=int, metavar="N", help="Classic way: processes here.")
@click.option("--verbose", is_flag=True, help="Show debug messages too.")
def run(config: str | None, verbose: bool, **flags: Any) -> None:
    """Wait for jobs and run them, until SIGTERM; SIGHUP reads the settings again.

    Every option can also come from the environment (MASTER_ADDR, MASTER_PORT, NODE_RANK,
    WORLD_SIZE, NPROC_PER_NODE, HF_HOME, LLAMAFORGE_…) or, under the same names, from the settings
    file. An option wins over a variable, a variable over the file.
    """
    faulthandler.enable()  # where a worker hangs is in the journal when the watchdog ends it
    notify = Notify.from_environment(os.environ)
    configuration = Configuration(flags, os.environ, config)
    log.set_up("worker", verbose=verbose)
    from llamaforge.worker.process_runner import ProcessRunner
    from llamaforge.worker.supervisor import Supervisor

    async def work() -> None:
        runner = ProcessRunner(configuration.settings, configuration.exports)
        runtime = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        await Supervisor(
            configuration, runner, notify=notify, runtime=Path(runtime) if runtime else None
        ).run()

    asyncio.run(work())
