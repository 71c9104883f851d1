"""`llamaforge coordinator run`: the service that plans jobs, in the foreground."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import click

from llamaforge import log
from llamaforge.spec.fleet import coordinator_settings


@click.group("coordinator")
def command() -> None:
    """Run the coordinator."""


@command.command("run")
@click.option("--host", metavar="IP", help="Address to listen on; by default 127.0.0.1.")
@click.option("--port", type=int, metavar="PORT", help="Port (29400); 0 takes any free one.")
@click.option("--state-dir", metavar="DIR", help="Fleet file, token and jobs.")
@click.option("--cache-dir", metavar="DIR", help="Blobs; may be shared.")
@click.option("--node-grace", type=float, metavar="S", help="Silence until a node is lost.")
@click.option("--return-grace", type=float, metavar="S", help="Wait for a worker that left.")
@click.option("--stop-seconds", type=float, metavar="S", help="Time to checkpoint and leave.")
@click.option("--verbose", is_flag=True, help="Show debug messages too.")
def run(verbose: bool, **flags: Any) -> None:
    """Plan jobs for the workers that connect, until SIGTERM.

    Traffic is not encrypted yet: listen on another address than 127.0.0.1 only in a network that
    you trust. Every option can also come from the environment (LLAMAFORGE_…).
    """
    settings = coordinator_settings(flags, os.environ)
    log.set_up("coordinator", verbose=verbose)
    from llamaforge.coordinator.run import run as serve

    asyncio.run(serve(settings))
