"""`llamaforge drain NODE`: before a machine is switched off; the same as `nodes drain`."""

from __future__ import annotations

from pathlib import Path

import click

from llamaforge.cli.asking import dry_run_option, fleet_option, json_option
from llamaforge.cli.names import NodeName
from llamaforge.cli.nodes import wish
from llamaforge.errors import UserError


@click.command("drain")
@click.argument("node", type=NodeName())
@click.option("--reason", metavar="TEXT", default="", help="Kept with it.")
@click.option("--now", is_flag=True, help="Leave its job at the next checkpoint.")
@click.option("--off", is_flag=True, help="Let the node take jobs again.")
@dry_run_option
@fleet_option
@json_option
def command(
    node: str,
    reason: str,
    now: bool,
    off: bool,
    dry_run: bool,
    fleet: Path | None,
    as_json: bool,
) -> None:
    """Let a node finish its job and give it nothing new."""
    if off and now:
        raise UserError("--off and --now contradict each other", hint="give one of them")
    wish(
        "allow" if off else "drain",
        node,
        fleet=fleet,
        as_json=as_json,
        dry_run=dry_run,
        reason=reason,
        now=now,
    )
