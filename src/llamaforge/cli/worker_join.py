"""`llamaforge worker join`: make this machine a node of a fleet, with a token from there.

    sudo llamaforge worker join 192.168.1.10:29400

As root on a machine with the worker's service it acts for the service: the certificate goes into
the service's state folder, the address into its settings, and the service reads them. Otherwise
it does the same for this user's own worker.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import tempfile
from pathlib import Path

import click
import msgspec

from llamaforge.cli.secret import ask_token
from llamaforge.errors import UserError
from llamaforge.identity import request
from llamaforge.identity.folder import About
from llamaforge.identity.keep import Kept, keep_as
from llamaforge.service.places import Places, in_home, on_machine
from llamaforge.spec import settings_file
from llamaforge.spec.fleet import WorkerSettings, host_and_port, variables, worker_settings
from llamaforge.wire import join
from llamaforge.worker.enrol import identity_of


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """For which worker a machine joins."""

    places: Places | None
    """Of its service; None: it is started by hand."""
    user: str
    """Whose worker it is; empty: this user's."""
    settings: WorkerSettings


@click.command("join")
@click.argument("coordinator", metavar="HOST:PORT")
@click.option("--name", metavar="NAME", help="The node's name; by default the settings' or host's.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File (mode 0600) with the token; otherwise it is asked for, or read from standard input.",
)
def command(coordinator: str, name: str | None, token_file: Path | None) -> None:
    """Make this machine a node of the fleet whose coordinator is at HOST:PORT.

    `llamaforge coordinator token` on the coordinator's machine gives a token, which is asked for
    here. The worker keeps its certificate, and renews it by itself.
    """
    host, port = host_and_port(coordinator, "HOST:PORT")
    target = find_target(name)
    token = ask_token(token_file)
    key = request.make()
    signed = asyncio.run(join.join(host, port, token, target.settings.name, key))
    keep_as(
        target.user,
        identity_of(target.settings),
        Kept(
            key=key.key,
            certificate=signed.certificate,
            authority=signed.authority,
            about=About(name=signed.name, token=token.id),
        ),
    )
    click.echo(f"{signed.name} has joined the fleet of {coordinator}")
    click.echo(_start(target, coordinator, name))


def find_target(name: str | None) -> Target:
    """The worker that is meant: root's is the machine's service where one is installed.

    Raises:
        UserError: its settings are wrong.
    """
    machine = on_machine()
    if os.geteuid() == 0 and (user := _service_user(machine)):
        return _of_service(machine, name, user)
    own = in_home(os.environ, str(Path.home()))
    if Path(own.settings).exists() and Path(own.units, own.kind.unit).exists():
        return _of_service(own, name, "")
    settings = worker_settings({"name": name}, os.environ)
    return Target(places=None, user="", settings=settings)


def _of_service(places: Places, name: str | None, user: str) -> Target:
    path, known = Path(places.settings), variables(WorkerSettings).values()
    file = settings_file.read(path, known) if path.exists() else None
    flags = {"name": name, "state_dir": places.state}
    return Target(places=places, user=user, settings=worker_settings(flags, {}, file))


def _service_user(places: Places) -> str:
    """Whose the machine's service is; empty where none is installed."""
    command = ["systemctl", "show", places.kind.unit, "--property=LoadState,User"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    return (found.get("User") or "root") if found.get("LoadState") == "loaded" else ""


def _start(target: Target, coordinator: str, name: str | None) -> str:
    """Writes the address down for the service, which then reads it. What to tell the person."""
    if target.places is None:
        named = f" --name {name}" if name else ""
        return f"start its worker: llamaforge worker run --coordinator {coordinator}{named}"
    path, unit = Path(target.places.settings), target.places.kind.unit
    values = {"LLAMAFORGE_COORDINATOR": coordinator}
    if name:
        values["LLAMAFORGE_NODE_NAME"] = name
    text = path.read_text() if path.exists() else ""
    for variable, value in values.items():
        text = with_value(text, variable, value)
    _replace(path, text)
    verb = "restart" if name else "try-reload-or-restart"  # a node's name needs a restart
    command = [*target.places.manager, verb, unit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(
            f"{unit} did not read its settings: {done.stderr.strip()}", hint=" ".join(command)
        )
    return f"wrote {path}; what the worker does: systemctl status {unit}"


def with_value(text: str, variable: str, value: str) -> str:
    """A settings file's text with one setting changed, in its own line where it has one."""
    line = f"{variable}={value}"
    for pattern in (rf"^{variable}=.*$", rf"^#\s*{variable}=.*$"):
        changed, count = re.subn(pattern, lambda _: line, text, count=1, flags=re.MULTILINE)
        if count:
            return changed
    return text + ("" if not text or text.endswith("\n") else "\n") + line + "\n"


def _replace(path: Path, text: str) -> None:
    """Replaces a settings file in one step; its owner and mode stay."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.stat() if path.exists() else None
    handle, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w") as file:
        file.write(text)
        os.fchmod(handle, before.st_mode & 0o7777 if before else 0o644)
        if before and os.geteuid() == 0:
            os.fchown(handle, before.st_uid, before.st_gid)
        file.flush()
        os.fsync(file.fileno())
    Path(made).rename(path)
