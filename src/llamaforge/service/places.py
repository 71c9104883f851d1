"""Where the service's files go on a machine, or in a person's home.

A packaged file stands below /usr/local/lib, where a distribution's packages never write; what a
person chose stands in /etc, so that `systemctl cat` shows both apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath as Path

import msgspec

UNIT = "llamaforge-worker.service"


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """One way of being installed. Paths are as the machine sees them, from its `/`."""

    lingering: bool
    """A person's own service, without root."""
    units: str
    """Folder of the packaged units."""
    dropins: str
    """Folder of the drop-ins that a person's choices become."""
    settings: str
    """The worker's settings file."""
    environment: str
    """Variables for the service; only its owner can read it."""
    token: str
    """The fleet's token; only its owner can read it."""
    mail_settings: str
    """Settings of mails on failure; they may hold a password."""
    manifest: str
    """What was installed, and with which options."""
    program: str
    """The environment's link to the version in use."""
    own: tuple[str, ...]
    """Folders that only the service fills; `--purge` removes them."""


def on_machine() -> Places:
    """The service of a whole machine."""
    return Places(
        lingering=False,
        units="/usr/local/lib/systemd/system",
        dropins=f"/etc/systemd/system/{UNIT}.d",
        settings="/etc/llamaforge/worker.conf",
        environment="/etc/llamaforge/environment",
        token="/etc/llamaforge/token",
        mail_settings="/etc/llamaforge/mail.conf",
        manifest="/var/lib/llamaforge-install/manifest.json",
        program="/opt/llamaforge/current",
        own=(
            "/etc/llamaforge",
            "/var/lib/llamaforge",
            "/var/cache/llamaforge",
            "/var/log/llamaforge",
            "/run/llamaforge",
        ),
    )


def in_home(environ: Mapping[str, str], home: str) -> Places:
    """The service of one person.

    Args:
        environ: the XDG variables say where a person's folders are.
        home: the person's home.
    """
    settings = Path(environ.get("XDG_CONFIG_HOME") or f"{home}/.config")
    state = Path(environ.get("XDG_STATE_HOME") or f"{home}/.local/state")
    data = Path(environ.get("XDG_DATA_HOME") or f"{home}/.local/share")
    cache = Path(environ.get("XDG_CACHE_HOME") or f"{home}/.cache")
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
        program=str(data / "llamaforge/current"),
        own=(str(own), str(state / "llamaforge"), str(cache / "llamaforge")),
    )
