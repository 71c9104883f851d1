"""The coordinator's settings as they are now, and which of them need a restart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamaforge.spec import settings_file
from llamaforge.spec.configuration import Configured
from llamaforge.spec.fleet import CoordinatorSettings, coordinator_settings

NEEDS_RESTART = frozenset({"state_dir", "cache_dir", "runtime_dir", "host", "port"})
"""Settings that a running coordinator can't change: its folders and where it listens."""


class Configuration(Configured[CoordinatorSettings]):
    """The coordinator's; see `Configured`."""

    def __init__(
        self, flags: Mapping[str, Any], environ: Mapping[str, str], config: str | None = None
    ) -> None:
        super().__init__(
            coordinator_settings,
            CoordinatorSettings,
            flags,
            environ,
            config,
            usual=settings_file.COORDINATOR_PATH,
            of="coordinator",
            needs_restart=NEEDS_RESTART,
        )
