"""`llamaforge coordinator`: what plans jobs, in the foreground or as a service; its join tokens."""

from __future__ import annotations

import asyncio
import faulthandler
import os
from typing import Any

import click

from llamaforge import log
from llamaforge.cli.setting_options import setting_options
from llamaforge.coordinator.configuration import Configuration
from llamaforge.spec.fleet import CoordinatorSettings, variables
from llamaforge.systemd.notify import Notify


class Parts(click.Group):
    """Imports the installation only for whoever installs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """What is imported here, `install` and `token`."""
        return sorted([*super().list_commands(ctx), "install", "token"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports `install` and `token` when they are asked for."""
        if cmd_name == "token":
            from llamaforge.cli import coordinator_token

            return coordinator_token.command
        if cmd_name != "install":
            return super().get_command(ctx, cmd_name)
        from llamaforge.cli import coordinator_install

        return coordinator_install.command


@click.group("coordinator", cls=Parts)
def command() -> None:
    """Run or install the coordinator, or make a token for its fleet."""


@command.command("run")
@click.option(
    "--config",
    metavar="FILE",
    help="Settings file; a service's is /etc/llamaforge/coordinator.conf.",
)
@setting_options(variables(CoordinatorSettings), kind=CoordinatorSettings)
@click.option("--verbose", is_flag=True, help="Show debug messages too.")
def run(config: str | None, verbose: bool, **flags: Any) -> None:
    """Plan jobs for the workers that have joined, until SIGTERM; SIGHUP reads the settings again.

    Every setting can also come from the environment variable that stands beside its option, or,
    under the same name, from the settings file. An option wins over a variable, a variable over
    the file.
    """
    faulthandler.enable()  # where it hangs is in the journal when the watchdog ends it
    notify = Notify.from_environment(os.environ)
    configuration = Configuration(flags, os.environ, config)
    log.set_up("coordinator", verbose=verbose)
    from llamaforge.coordinator.run import run as serve

    asyncio.run(serve(configuration, notify))
