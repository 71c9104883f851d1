"""The texts of a service's settings file and of the service's environment file."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping

import msgspec

from llamaforge.service.kind import WORKER, Kind
from llamaforge.service.request import asked_settings
from llamaforge.spec.fleet import meanings

_HEAD = """\
# Settings of this machine's {name}. `systemctl reload llamaforge-{name}` reads them again.
#
# A line is NAME=value{export}. A variable
# in the unit's Environment= wins over a line here. What is commented out shows the default.
"""
_EXPORT = "; one that begins with `export` goes into the ranks' environment"
_ENVIRONMENT_HEAD = "# Variables for the worker and its ranks; only the owner can read this file.\n"


def settings_file(values: Mapping[str, str], kind: Kind = WORKER) -> str:
    """The settings file with every key: those in `values` set, the others explained only."""
    fields = {field.name: field for field in msgspec.structs.fields(kind.settings)}
    meaning = meanings(kind.settings)
    export = _EXPORT if kind.runs_ranks else ""
    blocks = [_HEAD.format(name=kind.name, export=export)]
    for name, variable in asked_settings(kind).items():
        field = fields[name]
        lines = textwrap.wrap(meaning[name], 96, initial_indent="# ", subsequent_indent="# ")
        default = "" if field.default in (None, msgspec.NODEFAULT) else field.default
        default = kind.of_a_service.get(name, default)
        lines.append(
            f"{variable}={_value(values[variable])}"
            if variable in values
            else f"#{variable}={default}"
        )
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _value(text: str) -> str:
    """A value as `spec.settings_file` reads it back: in quotes where it would be cut otherwise."""
    return f'"{text}"' if re.search(r"""^["']|\s#|^\s|\s$""", text) else text


def environment_file(values: Mapping[str, str]) -> str:
    """An EnvironmentFile= (systemd.exec(5)): every value is quoted, nothing is expanded."""
    lines = [f'{name}="{_in_quotes(value)}"\n' for name, value in sorted(values.items())]
    return _ENVIRONMENT_HEAD + "".join(lines)


def _in_quotes(value: str) -> str:
    for character in ("\\", '"', "$", "`"):
        value = value.replace(character, "\\" + character)
    return value
