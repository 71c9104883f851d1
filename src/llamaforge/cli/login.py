"""`llamaforge login`: use a fleet whose coordinator is on another machine.

llamaforge login 192.168.1.10:29400
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from llamaforge.cli.secret import ask_token
from llamaforge.errors import UserError
from llamaforge.identity import request
from llamaforge.identity.folder import About
from llamaforge.spec.fleet import host_and_port
from llamaforge.wire import fleet_file, join
from llamaforge.wire.fleet_file import FleetFile


@click.command("login")
@click.argument("coordinator", metavar="HOST:PORT")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File (mode 0600) with the token; otherwise it is asked for, or read from standard input.",
)
def command(coordinator: str, token_file: Path | None) -> None:
    """Use a fleet on another machine, with a token from there.

    The token comes from `llamaforge coordinator token --person NAME` on the coordinator's machine.
    Your key stays here, in ~/.config/llamaforge.
    """
    host, port = host_and_port(coordinator, "HOST:PORT")
    token = ask_token(token_file)
    key = request.make()
    signed = asyncio.run(join.join(host, port, token, "", key))
    path = fleet_file.remote_path()
    home = path.parent / "identity"
    try:
        join.save(home, key, signed, About(name=signed.name, token=token.id))
        fleet_file.write(
            path, FleetFile(host=host, port=port, authority=token.authority, identity=str(home))
        )
    except OSError as why:
        raise UserError(f"the login can't be kept in {path.parent}: {why}") from why
    click.echo(f"you are {signed.name} in the fleet of {coordinator}: llamaforge status")
