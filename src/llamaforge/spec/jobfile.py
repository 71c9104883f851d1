"""Reads a job file, YAML or TOML, into option values and the line of each.

Values stay texts as they were written, so that the option's own type decides what they mean:
`name: no` is the name "no" and `learning_rate: 1e-4` a number, whatever YAML 1.1 would make of
them. Relative paths in a file are relative to the file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llamaforge.errors import SpecError
from llamaforge.spec.checks import fraction
from llamaforge.spec.job import JobSpec
from llamaforge.spec.options import PATHS
from llamaforge.spec.parse import job_spec


@dataclass(frozen=True)
class JobFile:
    """What a job file says."""

    path: Path
    values: dict[str, Any]
    """By key as written; relative paths already lead from the current folder."""
    lines: dict[str, int] = field(default_factory=dict)
    """Line of each key, counted from 1, as far as it is known."""


def read_job_file(path: Path) -> JobFile:
    """Reads a `.yaml`, `.yml` or `.toml` file.

    The resolved `job.yaml` of a finished job is accepted as well: its `spec` is used, whose paths
    are whole or relative to the current folder.

    Raises:
        SpecError: no such file, not UTF-8, a syntax error, not a mapping, or a key given twice;
            the message names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        why = error.strerror or str(error)
        raise SpecError(f"job file {path}: {why}", hint="give a .yaml or .toml file") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"job file {path} is not UTF-8 text (byte {error.start})") from None
    suffix = path.suffix.lower()
    resolved = False
    if suffix == ".toml":
        values, lines = _toml(path, text)
    elif suffix in (".yaml", ".yml"):
        values, lines, resolved = _yaml(path, text)
    else:
        raise SpecError(f"job file {path}: {suffix or 'no suffix'}, not .yaml, .yml or .toml")
    if not resolved:
        values = {key: _from_file(path, key, value) for key, value in values.items()}
    return JobFile(path, values, lines)


def merge(file: JobFile | None, flags: Mapping[str, Any]) -> JobSpec:
    """The job of a file and command line flags; flags win over the file.

    Args:
        file: a job file, if one was given.
        flags: option values as texts, by name, without those that were not given.

    Raises:
        SpecError: with all mistakes of both.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for key, value in (file.values if file else {}).items():
        assert file is not None
        plain = key.replace("-", "_")
        if plain not in flags:
            values[key] = value
            line = file.lines.get(key)
            origins[plain] = f"{file.path}:{line}: {key}" if line else f"{file.path}: {key}"
    for key, value in flags.items():
        values[key] = value
        origins[key] = "--" + key.replace("_", "-")
    return job_spec(values, source=str(file.path) if file else "command line", origins=origins)


def _from_file(path: Path, key: str, value: Any) -> Any:
    """Makes a relative path in a file relative to the current folder instead."""
    key = key.replace("-", "_")
    if not isinstance(value, str) or not value:
        return value
    beside = path.parent / value
    if key == "model":
        local = value.startswith(("./", "../")) or (value != "tiny" and beside.is_dir())
        return str(beside) if local else value
    if key not in PATHS or value.startswith("~") or value.lower() in ("none", "null"):
        return value
    if key == "heldout" and (fraction(value) is not None or value.endswith("%")):
        return value
    return str(beside)


def _yaml(path: Path, text: str) -> tuple[dict[str, Any], dict[str, int], bool]:
    """Values and lines, and whether the file is the resolved one of a job."""
    import yaml

    try:
        loader = yaml.SafeLoader(text)
        whole = root = loader.get_single_node()
        if isinstance(root, yaml.MappingNode):
            root = _spec_of_resolved(root)
            loader.flatten_mapping(root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpecError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: not valid YAML: {error}") from None
    if root is None:
        return {}, {}, False
    if not isinstance(root, yaml.MappingNode):
        raise SpecError(f"{path}:1: a job file is a mapping of options, such as `epochs: 2`")
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in root.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key in values:
            raise SpecError(f"{path}:{line}: {key} stands twice; first in line {lines[key]}")
        values[key], lines[key] = _plain_value(value_node), line
    return values, lines, root is not whole


def _spec_of_resolved(root: Any) -> Any:
    """The `spec` mapping of a resolved job file, or the file's own mapping."""
    keys = {str(key.value): value for key, value in root.value}
    return keys["spec"] if {"id", "spec", "model_digest"} <= keys.keys() else root


def _plain_value(node: Any) -> Any:
    """A YAML node as texts, lists, mappings and None."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _plain_value(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain_value(part) for part in node.value]
    return None if node.tag == "tag:yaml.org,2002:null" else node.value


def _toml(path: Path, text: str) -> tuple[dict[str, Any], dict[str, int]]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{path}: not valid TOML: {error}") from None
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        found = re.match(r"""\s*\[?\s*["']?([A-Za-z0-9_-]+)["']?\s*[=\].]""", line)
        if found:
            lines.setdefault(found[1], number)
    return values, lines
