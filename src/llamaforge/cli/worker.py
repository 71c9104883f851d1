"""`llamaforge worker`: the service on a node, run in the foreground or installed."""

from __future__ import annotations

import asyncio
import faulthandler
import os
from pathlib import Path
from typing import Any

import click

from llamaforge import log
from llamaforge.cli.setting_options import setting_options
from llamaforge.spec.fleet import WorkerSettings, variables
from llamaforge.systemd.notify import Notify
from llamaforge.worker.configuration import Configuration


class Parts(click.Group):
    """Imports the installation only for whoever installs: a worker that waits stays small."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """What is imported here, `install` and `join`."""
        return sorted([*super().list_commands(ctx), "install", "join"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports `install` and `join` when they are asked for."""
        if cmd_name == "join":
            from llamaforge.cli import worker_join

            return worker_join.command
        if cmd_name != "install":
            return super().get_command(ctx, cmd_name)
        from llamaforge.cli import worker_install

        return worker_install.command


@click.group("worker", cls=Parts)
def command() -> None:
    """Run this machine's worker, install it, or let it join."""


@command.command("run")
@click.option(
    "--config", metavar="FILE", help="Settings file; a service's is /etc/llamaforge/worker.conf."
)
@setting_options(variables(WorkerSettings))
@click.option("--verbose", is_flag=True, help="Show debug messages too.")
def run(config: str | None, verbose: bool, **flags: Any) -> None:
    """Wait for jobs and run them, until SIGTERM; SIGHUP reads the settings again.

    Every setting can also come from the environment variable that stands beside its option, or,
    under the same name, from the settings file. An option wins over a variable, a variable over
    the file.
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
