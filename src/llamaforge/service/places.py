"""Where the service's files go on a machine, or in a person's home.

A packaged file stands below /usr/local/lib, where a distribution's packages never write; what a
person chose stands in /etc, so that `systemctl cat` shows both apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import msgspec

from llamaforge.service.kind import COORDINATOR, WORKER, Kind

UNIT = WORKER.unit


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """One way of being installed. Paths are as the machine sees them, from its `/`."""

    kind: Kind = WORKER
    """Which service."""
    lingering: bool
    """A person's own service, without root."""
    units: str
    """Folder of the packaged units."""
    dropins: str
    """Folder of the drop-ins that a person's choices become."""
    settings: str
    """Its settings file."""
    environment: str
    """Variables for the service; only its owner can read it."""
    token: str
    """A join token; only its owner can read it."""
    mail_settings: str
    """Settings of mails on failure; they may hold a password."""
    manifest: str
    """What was installed, and with which options."""
    lock: str
    """What an installation holds while it is under way."""
    program: str
    """The environment's link to the version in use."""
    packaged_program: str
    """The same where the packaged unit looks for it."""
    etc: str
    """Folder of settings and secrets; `--purge` removes it with the last service."""
    state: str
    """Folder of what must survive."""
    own: tuple[str, ...]
    """Folders that only this service fills; `--purge` removes them."""

    @property
    def manager(self) -> tuple[str, ...]:
        """How a command line begins that speaks to the service's manager."""
        return ("systemctl", "--user") if self.lingering else ("systemctl",)


def program_of(environment: str) -> str:
    """The link to the version in use, where an environment is one of several versions; else "".

    Args:
        environment: `sys.prefix`: with install.sh, `PREFIX/versions/NAME`.
    """
    versions = Path(environment).parent
    link = versions.parent / "current"
    return str(link) if versions.name == "versions" and link.is_symlink() else ""


def on_machine(program: str = "", kind: Kind = WORKER) -> Places:
    """The service of a whole machine.

    Args:
        program: the link to the version in use, where it is not the usual one.
        kind: which service.
    """
    usual = "/opt/llamaforge/current"
    own = kind.user
    manifest = "coordinator.json" if kind is COORDINATOR else "manifest.json"
    return Places(
        kind=kind,
        lingering=False,
        units="/usr/local/lib/systemd/system",
        dropins=f"/etc/systemd/system/{kind.unit}.d",
        settings=kind.file,
        environment="/etc/llamaforge/environment",
        token="/etc/llamaforge/token",
        mail_settings="/etc/llamaforge/mail.conf",
        manifest=f"/var/lib/llamaforge-install/{manifest}",
        lock="/run/llamaforge-install.lock",
        program=program or usual,
        packaged_program=usual,
        etc="/etc/llamaforge",
        state=f"/var/lib/{own}",
        own=(
            f"/var/lib/{own}",
            f"/var/cache/{own}",
            *((f"/var/log/{own}",) if kind.runs_ranks else ()),
            f"/run/{own}",
        ),
    )


def in_home(environ: Mapping[str, str], home: str, program: str = "") -> Places:
    """The worker's service of one person.

    Args:
        environ: the XDG variables say where a person's folders are.
        home: the person's home.
        program: the link to the version in use, where it is not the usual one.
    """
    settings = PurePosixPath(environ.get("XDG_CONFIG_HOME") or f"{home}/.config")
    state = PurePosixPath(environ.get("XDG_STATE_HOME") or f"{home}/.local/state")
    data = PurePosixPath(environ.get("XDG_DATA_HOME") or f"{home}/.local/share")
    cache = PurePosixPath(environ.get("XDG_CACHE_HOME") or f"{home}/.cache")
    own = settings / "llamaforge"
    return Places(
        lingering=True,
        units=str(settings / "systemd/user"),
        dropins=str(settings / f"systemd/user/{UNIT}.d"),
        settings=str(own / "worker.conf"),
        environment=str(own / "environment"),
        token=str(own / "token"),
        mail_settings=str(own / "mail.conf"),
        manifest=str(state / "llamaforge-install/manifest.json"),
        lock=home,
        program=program or str(data / "llamaforge/current"),
        packaged_program=f"{home}/.local/share/llamaforge/current",
        etc=str(own),
        state=str(state / "llamaforge"),
        own=(str(state / "llamaforge"), str(cache / "llamaforge")),
    )
