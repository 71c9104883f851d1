"""The two services that can be installed, each in a few words: all that their plans differ in."""

from __future__ import annotations

import msgspec

from llamaforge.spec.fleet import (
    ALL_ADDRESSES,
    CoordinatorSettings,
    WorkerSettings,
    coordinator_settings,
    worker_settings,
)
from llamaforge.spec.settings_file import COORDINATOR_PATH, PATH, SettingsFile

GROUP = "llamaforge"
"""The group of both services; its members may give orders to the machine's coordinator."""


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What is special about one service."""

    name: str
    """`worker` or `coordinator`: the verb, and how people call it."""
    user: str
    """Its own account."""
    settings: type[WorkerSettings] | type[CoordinatorSettings]
    file: str
    """Its settings file on a machine."""
    decided: frozenset[str]
    """Settings that the unit decides: its folders, and what it is given."""
    of_a_service: dict[str, str]
    """Defaults that are others under systemd."""
    declarations: dict[str, str]
    """For systemd-sysusers and -tmpfiles: path on the machine to the shipped file."""
    runs_ranks: bool
    """Whether people's training runs under it, with GPUs, files and variables of theirs."""

    @property
    def unit(self) -> str:
        """Its unit's name."""
        return f"llamaforge-{self.name}.service"

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"llamaforge {self.name} install"

    def check(self, values: dict[str, str]) -> None:
        """Raises SpecError for a setting that the service would refuse."""
        if self.settings is WorkerSettings:
            worker_settings({}, values)
        else:
            coordinator_settings({}, {}, SettingsFile(path=self.file, values=values))


WORKER = Kind(
    name="worker",
    user="llamaforge",
    settings=WorkerSettings,
    file=PATH,
    decided=frozenset({"state_dir", "cache_dir", "token_file", "fleet"}),
    of_a_service={"peer_host": ALL_ADDRESSES},
    declarations={
        "/usr/local/lib/sysusers.d/llamaforge.conf": "sysusers.d/llamaforge.conf",
        "/usr/local/lib/tmpfiles.d/llamaforge.conf": "tmpfiles.d/llamaforge.conf",
    },
    runs_ranks=True,
)
COORDINATOR = Kind(
    name="coordinator",
    user="llamaforge-coordinator",
    settings=CoordinatorSettings,
    file=COORDINATOR_PATH,
    decided=frozenset({"state_dir", "cache_dir", "runtime_dir"}),
    of_a_service={"host": ALL_ADDRESSES},
    declarations={
        "/usr/local/lib/sysusers.d/llamaforge-coordinator.conf": (
            "sysusers.d/llamaforge-coordinator.conf"
        ),
    },
    runs_ranks=False,
)
KINDS = (WORKER, COORDINATOR)
