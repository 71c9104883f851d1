"""`llamaforge people`: who may use the fleet from other machines."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import click

from llamaforge.cli.asking import fleet_option, json_option, put, table
from llamaforge.wire import membership
from llamaforge.wire.client import FleetClient
from llamaforge.wire.endpoint import Endpoint


@click.command("people")
@click.option("--withdraw", metavar="NAME", help="Refuse this person from now on.")
@click.option("--reason", default="", metavar="TEXT", help="Why, for the fleet's events.")
@fleet_option
@json_option
def command(withdraw: str | None, reason: str, fleet: Path | None, as_json: bool) -> None:
    """List who may use the fleet from elsewhere, or refuse one.

    On the coordinator's machine only.
    """
    coordinator = Endpoint.of(FleetClient.open(fleet).fleet)
    if withdraw:
        found = asyncio.run(membership.withdraw(coordinator, withdraw, reason))
    else:
        found = asyncio.run(membership.people(coordinator))
    if as_json:
        for person in found:
            put(person)
        return
    if withdraw:
        click.echo(f"{withdraw} is refused from now on")
        return
    rows = [
        (
            person.name,
            "withdrawn" if person.withdrawn else "may use the fleet",
            time.strftime("%Y-%m-%d", time.localtime(person.since)),
        )
        for person in found
    ]
    empty = "nobody; `llamaforge coordinator token --person NAME` lets somebody in"
    click.echo("\n".join(table(("person", "state", "since"), rows)) if rows else empty)
