"""The worker's settings as they are now: read at the start, and again on a reload."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from llamaforge.spec import settings_file
from llamaforge.spec.fleet import WorkerSettings, variables, worker_settings
from llamaforge.spec.settings_file import SettingsFile
from llamaforge.systemd import unit

VARIABLE = "LLAMAFORGE_CONFIG"
"""Names the settings file, like --config."""
NEEDS_RESTART = frozenset({"name", "state_dir", "cache_dir", "peer_port", "peer_host"})
"""Settings that a running worker can't change."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload has changed, by variable."""

    now: tuple[str, ...] = ()
    """In force from now on, or from the next job on."""
    after_restart: tuple[str, ...] = ()
    """In force after a restart only."""

    def __str__(self) -> str:
        said = [f"changed: {', '.join(self.now)}"] if self.now else []
        if self.after_restart:
            said.append(f"only after a restart: {', '.join(self.after_restart)}")
        return "; ".join(said) or "nothing has changed"


class Configuration:
    """Where the settings come from, and what they are.

    Args:
        flags: by field name, from the command line; None means not given.
        environ: the worker's environment.
        config: the settings file that the command line names.

    Raises:
        SpecError: a value, or the file, is wrong.
    """

    def __init__(
        self, flags: Mapping[str, Any], environ: Mapping[str, str], config: str | None = None
    ) -> None:
        self._flags, self._environ = dict(flags), dict(environ)
        self._config = config
        self.settings, self.exports = self._read()
        """`exports` is what the file adds to the environment of the ranks."""

    def reload(self) -> Change:
        """Reads everything again. What needs a restart keeps its old value.

        Raises:
            SpecError: something is wrong now; the settings stay as they were.
        """
        wanted, exports = self._read()
        kept = {name: getattr(self.settings, name) for name in NEEDS_RESTART}
        new = msgspec.structs.replace(wanted, **kept)
        names = variables(WorkerSettings)
        change = Change(
            now=tuple(names[field] for field in _different(self.settings, new))
            + tuple(sorted(_changed_keys(self.exports, exports))),
            after_restart=tuple(names[field] for field in _different(new, wanted)),
        )
        self.settings, self.exports = new, exports
        return change

    def _read(self) -> tuple[WorkerSettings, dict[str, str]]:
        file = self._file()
        settings = worker_settings(self._flags, self._environ, file)
        return settings, dict(file.exports) if file else {}

    def _file(self) -> SettingsFile | None:
        """The file that was named; for the service, else, the usual one where it is."""
        named = self._config or self._environ.get(VARIABLE)
        known = variables(WorkerSettings).values()
        if named:
            return settings_file.read(Path(named), known)
        usual = Path(settings_file.PATH)
        if unit.runs_us(self._environ) and _stands(usual):
            return settings_file.read(usual, known)
        return None


def _stands(path: Path) -> bool:
    """Whether a file is there; one in a folder that is closed to us is, and reading it says so."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def _different(one: WorkerSettings, other: WorkerSettings) -> list[str]:
    """Names of the fields that differ, in order."""
    names = WorkerSettings.__struct_fields__
    return [name for name in names if getattr(one, name) != getattr(other, name)]


def _changed_keys(one: Mapping[str, str], other: Mapping[str, str]) -> set[str]:
    return {name for name in {*one, *other} if one.get(name) != other.get(name)}
