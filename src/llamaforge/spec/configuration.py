"""A service's settings as they are now: read at the start, and again on a reload.

Worker and coordinator share this: flag, environment, settings file, default, in this order, and
what a running service can't change is kept and named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Generic

import msgspec

from llamaforge.spec import settings_file
from llamaforge.spec.fleet import Settings, variables
from llamaforge.spec.settings_file import SettingsFile
from llamaforge.systemd import unit

VARIABLE = "LLAMAFORGE_CONFIG"
"""Names the settings file, like --config."""
Resolve = Callable[[Mapping[str, Any], Mapping[str, str], SettingsFile | None], Settings]


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


class Configured(Generic[Settings]):
    """Where the settings of a service come from, and what they are.

    Args:
        resolve: makes the settings, such as `spec.fleet.worker_settings`.
        kind: what it makes.
        flags: by field name, from the command line; None means not given.
        environ: the service's environment.
        config: the settings file that the command line names.
        usual: the settings file of the installed service.
        of: whose settings they are, for messages.
        needs_restart: fields that a running service can't change.

    Raises:
        SpecError: a value, or the file, is wrong.
    """

    def __init__(
        self,
        resolve: Resolve[Settings],
        kind: type[Settings],
        flags: Mapping[str, Any],
        environ: Mapping[str, str],
        config: str | None,
        *,
        usual: str,
        of: str,
        needs_restart: Iterable[str],
    ) -> None:
        self._resolve: Resolve[Settings] = resolve
        self._kind: type[Settings] = kind
        self._of = of
        self._flags, self._environ = dict(flags), dict(environ)
        self._config, self._usual = config, Path(usual)
        self._needs_restart = tuple(needs_restart)
        self.settings: Settings
        self.exports: dict[str, str]
        self.settings, self.exports = self._read()
        """`exports` is what the file adds to the environment of the ranks."""

    def reload(self) -> Change:
        """Reads everything again. What needs a restart keeps its old value.

        Raises:
            SpecError: something is wrong now; the settings stay as they were.
        """
        wanted, exports = self._read()
        kept = {name: getattr(self.settings, name) for name in self._needs_restart}
        new = msgspec.structs.replace(wanted, **kept)
        names = variables(self._kind)
        change = Change(
            now=tuple(names[field] for field in _different(self.settings, new))
            + tuple(sorted(_changed_keys(self.exports, exports))),
            after_restart=tuple(names[field] for field in _different(new, wanted)),
        )
        self.settings, self.exports = new, exports
        return change

    def _read(self) -> tuple[Settings, dict[str, str]]:
        file = self._file()
        settings = self._resolve(self._flags, self._environ, file)
        return settings, dict(file.exports) if file else {}

    def _file(self) -> SettingsFile | None:
        """The file that was named; for the service, else, the usual one where it is."""
        named = self._config or self._environ.get(VARIABLE)
        known = variables(self._kind).values()
        if named:
            return settings_file.read(Path(named), known, self._of)
        if unit.runs_us(self._environ) and _stands(self._usual):
            return settings_file.read(self._usual, known, self._of)
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


def _different(one: Settings, other: Settings) -> list[str]:
    """Names of the fields that differ, in order."""
    names = type(one).__struct_fields__
    return [name for name in names if getattr(one, name) != getattr(other, name)]


def _changed_keys(one: Mapping[str, str], other: Mapping[str, str]) -> set[str]:
    return {name for name in {*one, *other} if one.get(name) != other.get(name)}
