"""The texts of the worker's settings file and of the service's environment file."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping

import msgspec

from llamaforge.service.request import asked_settings
from llamaforge.spec.fleet import WorkerSettings, meanings

_HEAD = """\
# Settings of this machine's worker. `systemctl reload llamaforge-worker` reads them again.
#
# A line is NAME=value; one that begins with `export` goes into the ranks' environment. A variable
# in the unit's Environment= wins over a line here. What is commented out shows the default.
"""
_OF_A_SERVICE = {"peer_host": "::"}
"""Defaults that are others under systemd; see `spec.fleet.worker_settings`."""
_ENVIRONMENT_HEAD = "# Variables for the worker and its ranks; only the owner can read this file.\n"


def settings_file(values: Mapping[str, str]) -> str:
    """The settings file with every key: those in `values` set, the others explained only."""
    fields = {field.name: field for field in msgspec.structs.fields(WorkerSettings)}
    meaning = meanings(WorkerSettings)
    blocks = [_HEAD]
    for name, variable in asked_settings().items():
        field = fields[name]
        lines = textwrap.wrap(meaning[name], 96, initial_indent="# ", subsequent_indent="# ")
        default = "" if field.default in (None, msgspec.NODEFAULT) else field.default
        default = _OF_A_SERVICE.get(name, default)
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
