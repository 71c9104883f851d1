"""The worker's settings as they are now, and which of them need a restart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamaforge.spec import settings_file
from llamaforge.spec.configuration import VARIABLE, Change, Configured
from llamaforge.spec.fleet import WorkerSettings, worker_settings

__all__ = ["NEEDS_RESTART", "VARIABLE", "Change", "Configuration"]

NEEDS_RESTART = frozenset({"name", "state_dir", "cache_dir", "peer_port", "peer_host"})
"""Settings that a running worker can't change."""


class Configuration(Configured[WorkerSettings]):
    """The worker's; see `Configured`."""

    def __init__(
        self, flags: Mapping[str, Any], environ: Mapping[str, str], config: str | None = None
    ) -> None:
        super().__init__(
            worker_settings,
            WorkerSettings,
            flags,
            environ,
            config,
            usual=settings_file.PATH,
            of="worker",
            needs_restart=NEEDS_RESTART,
        )
