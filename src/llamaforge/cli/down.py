"""`llamaforge down`: stops the fleet that `llamaforge up` keeps on this machine."""

from __future__ import annotations

import os
import signal
import time

import click

from llamaforge import paths
from llamaforge.cli.owner import Owner
from llamaforge.errors import FleetError, UserError
from llamaforge.wire import fleet_file

DOWN_SECONDS = 90.0
"""How long the fleet may take: a job saves a checkpoint first."""


@click.command("down")
def command() -> None:
    """Stop what `up` started."""
    owner = Owner(paths.state_dir())
    pid = owner.find()
    if pid is None:
        _nothing_to_stop()
        return
    os.kill(pid, signal.SIGTERM)
    click.echo(f"stopping the fleet (pid {pid}); a running job saves a checkpoint first")
    until = time.monotonic() + DOWN_SECONDS
    while owner.find() == pid:
        if time.monotonic() > until:
            raise FleetError(
                f"the fleet (pid {pid}) still runs after {DOWN_SECONDS:.0f} s",
                hint=f"look at its log, or end it: kill -KILL {pid}",
            )
        time.sleep(0.1)
    click.echo("stopped")


def _nothing_to_stop() -> None:
    if fleet := fleet_file.find():
        raise UserError(
            f"the coordinator (pid {fleet.pid}, port {fleet.port}) was not started by "
            "`llamaforge up`",
            hint=f"stop it where it was started, or: kill {fleet.pid}",
        )
    fleet_file.default_path().unlink(missing_ok=True)  # stale, if there is one
    click.echo("no fleet runs here")
