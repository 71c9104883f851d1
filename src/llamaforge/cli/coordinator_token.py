"""`llamaforge coordinator token`: what lets a node or a person join.

llamaforge coordinator token
llamaforge coordinator token --person anna --valid 1d
llamaforge coordinator token --only-token | ssh node2 sudo llamaforge worker join HOST:PORT
"""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import click

from llamaforge.cli.asking import fleet_option, json_option, put
from llamaforge.errors import UserError
from llamaforge.wire import membership
from llamaforge.wire.api import Token, TokenWish
from llamaforge.wire.client import FleetClient
from llamaforge.wire.endpoint import Endpoint

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


@click.command("token")
@click.option("--person", metavar="NAME", help="For a person instead of a node.")
@click.option("--node", metavar="NAME", help="For the node of that name only.")
@click.option("--uses", type=int, default=1, metavar="N", help="How often it can be used (1).")
@click.option("--valid", default="1h", metavar="TIME", help="For how long: 30m, 1h (usual), 7d.")
@click.option("--only-token", is_flag=True, help="Print the token alone, for a pipe.")
@fleet_option
@json_option
def command(
    person: str | None,
    node: str | None,
    uses: int,
    valid: str,
    only_token: bool,
    fleet: Path | None,
    as_json: bool,
) -> None:
    """Make a join token, and print the line that uses it; on the coordinator's machine only."""
    if person and node:
        raise UserError("--person and --node exclude each other")
    wish = TokenWish(
        role="person" if person else "node",
        name=person or node or "",
        uses=uses,
        seconds=seconds(valid),
    )
    coordinator = Endpoint.of(FleetClient.open(fleet).fleet)
    token = asyncio.run(membership.make_token(coordinator, wish))
    if as_json:
        put(token)
    elif only_token:
        click.echo(token.token)
    else:
        click.echo(words(token, wish))


def seconds(text: str) -> float:
    """A time span such as 90s, 30m, 1h, 7d, in seconds. Raises UserError."""
    found = re.fullmatch(r"(\d{1,9})\s*(s|m|min|h|d)", text.strip())
    if found is None:
        raise UserError(f"--valid is {text!r}", hint="such as 30m, 1h, 7d")
    return float(found[1]) * _UNITS[found[2]]


def words(token: Token, wish: TokenWish) -> str:
    """What a person is told."""
    line = f"llamaforge login {token.address}"
    where = f"{wish.name} runs, on any machine with LlamaForge:"
    if wish.role == "node":
        line = f"sudo llamaforge worker join {token.address}"
        where = f"On the node{f' {wish.name}' if wish.name else ''}:"
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(token.expires))
    times = "once" if token.uses == 1 else f"{token.uses} times"
    text = f"{where}\n\n    {line}\n\nIt asks for this token (good {times}, until {until}):\n\n"
    text += f"    {token.token}\n"
    if _is_loopback(token.address):
        text += (
            "\nThis coordinator listens on this machine only. For other machines start it with "
            "--host ::\n"
        )
    return text


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0]
    return host in ("localhost", "[::1]") or host.startswith("127.")
