"""How a worker comes to its certificate: it has one, or gets one by token or from next door.

| how the worker knows its coordinator | where its certificate comes from |
|---|---|
| a fleet file on this machine (`--fleet`) | the coordinator's unix socket; no token |
| LLAMAFORGE_COORDINATOR and a token file | the token, once |
| LLAMAFORGE_COORDINATOR alone | `llamaforge worker join`, by hand |

It is kept in `identity/` in the state folder, and survives restarts, reinstallation and a change
of address.
"""

from __future__ import annotations

import logging
from pathlib import Path

from llamaforge.errors import FleetError, UserError
from llamaforge.identity import folder, request
from llamaforge.identity.fingerprint import fingerprint
from llamaforge.identity.folder import About
from llamaforge.identity.token import JoinToken
from llamaforge.spec.fleet import WorkerSettings, host_and_port
from llamaforge.wire import api, fleet_file
from llamaforge.wire import join as joining
from llamaforge.wire.endpoint import Endpoint
from llamaforge.wire.fleet_file import FleetFile
from llamaforge.worker.orphans import own_child

log = logging.getLogger("llamaforge.worker")


def identity_of(settings: WorkerSettings) -> Path:
    """The folder of a worker's identity."""
    return Path(settings.state_dir) / "identity"


def find_coordinator(settings: WorkerSettings) -> Endpoint:
    """Where the coordinator is now: the fleet file is read anew each time, since it may move.

    Raises:
        FleetError: nothing says where it is.
    """
    home = str(identity_of(settings))
    if settings.coordinator is not None:
        host, port = host_and_port(settings.coordinator)
        return Endpoint(host=host, port=port, identity=home)
    fleet = _fleet(settings)
    return Endpoint(host=fleet.host, port=fleet.port, identity=home)


async def enrol(settings: WorkerSettings, *, refused: bool = False) -> None:
    """Sees to it that the worker has a certificate of its fleet.

    Args:
        settings: of the worker.
        refused: whether the coordinator takes the one that is there no more; a token that it was
            not made for is then tried.

    Raises:
        FleetError: there is none, and no way to get one by itself; says the command.
        UserError: the token is refused.
    """
    if settings.coordinator is None:
        await _from_next_door(settings, _fleet(settings), refused=refused)
    else:
        await _by_token(settings, refused=refused)


async def _from_next_door(settings: WorkerSettings, fleet: FleetFile, *, refused: bool) -> None:
    home = identity_of(settings)
    fits = _fits(home, settings.name) and _authority(home) == fleet.authority
    if fits and not refused:
        return
    if not fleet.socket:
        raise FleetError(
            f"the fleet file {settings.fleet} is for people of another machine",
            hint=f"sudo llamaforge worker join {fleet.host}:{fleet.port}",
        )
    with own_child():
        key = await request.make_elsewhere()
    signed = await joining.join_here(fleet.socket, settings.name, key)
    _save(home, key, signed, About(name=settings.name))


async def _by_token(settings: WorkerSettings, *, refused: bool) -> None:
    home = identity_of(settings)
    token = _token(settings)
    has_one = _fits(home, settings.name)
    if token is None or token.id == folder.about(home).token:
        if not has_one:
            raise _no_certificate(settings, home)
        return
    if has_one and not refused and token.authority == _authority(home):
        return  # the token is left over from joining
    host, port = host_and_port(settings.coordinator or "")
    with own_child():
        key = await request.make_elsewhere()
    signed = await joining.join(host, port, token, settings.name, key)
    _save(home, key, signed, About(name=settings.name, token=token.id))


def _save(home: Path, key: request.KeyRequest, signed: api.Certificate, about: About) -> None:
    try:
        joining.save(home, key, signed, about)
    except OSError as why:
        raise FleetError(f"the certificate can't be kept in {home}: {why.strerror}") from why
    log.info("joined the fleet as %s; its certificate is kept in %s", about.name, home)


def _fits(home: Path, name: str) -> bool:
    """Whether there is an identity, of this name."""
    return folder.complete(home) and folder.about(home).name == name


def _authority(home: Path) -> str:
    try:
        return fingerprint(folder.authority_file(home).read_text())
    except (OSError, ValueError):
        return ""


def _token(settings: WorkerSettings) -> JoinToken | None:
    """The token to join with, if one was given; a file without one is none.

    Raises:
        FleetError: it can't be read.
        UserError: it holds something else.
    """
    if not settings.token_file:
        return None
    path = Path(settings.token_file)
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as why:
        raise FleetError(f"the token file {path} can't be read: {why}") from why
    try:
        return JoinToken.parse(text) if text else None
    except UserError as why:
        raise FleetError(f"the token file {path}: {why.message}", hint=why.hint) from why


def _fleet(settings: WorkerSettings) -> FleetFile:
    path = Path(settings.fleet or Path(settings.state_dir) / fleet_file.NAME)
    if not path.exists():
        raise FleetError(f"no fleet file at {path} yet")
    return fleet_file.read(path)


def _no_certificate(settings: WorkerSettings, home: Path) -> FleetError:
    there = folder.about(home).name
    why = f"it joined as {there!r}" if there else "it has no certificate"
    return FleetError(
        f"{settings.name} has not joined the fleet of {settings.coordinator} ({why}); join it: "
        f"sudo llamaforge worker join {settings.coordinator}"
    )
