"""Makes a `JobSpec` from what a person wrote, and reports every mistake at once.

Values come from a command line (texts), a YAML or TOML file (texts, numbers, lists, mappings) or a
program. Each is converted by its option's declared type; what several options mean together is
checked by `spec.checks`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from llamaforge.errors import SpecError
from llamaforge.spec.checks import Mistake, contradictions
from llamaforge.spec.job import JobSpec
from llamaforge.spec.options import FREE_TEXT, PATHS, Option, closest, options

_HINT = "`llamaforge train --help-all` lists every option and its range"

_ELSEWHERE = {
    "lr": "learning_rate",
    "rank": "lora_r",
    "r": "lora_r",
    "alpha": "lora_alpha",
    "target_modules": "lora_targets",
    "dtype": "precision",
    "bf16": "precision",
    "data": "dataset",
    "data_path": "dataset",
    "dataset_path": "dataset",
    "validation": "heldout",
    "eval_dataset": "heldout",
    "max_seq_length": "max_length",
    "cutoff_len": "max_length",
    "model_name_or_path": "model",
    "base_model": "model",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "micro_batch_size": "batch_size",
    "lr_scheduler_type": "schedule",
    "warmup_ratio": "warmup",
    "max_grad_norm_clip": "max_grad_norm",
    "save_total_limit": "keep_last",
    "resume_from_checkpoint": "auto_resume",
    "resume": "auto_resume",
    "output": "output_dir",
    "run_name": "name",
}
"""What other training tools call the same thing."""

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


def job_spec(
    values: Mapping[str, Any], *, source: str, origins: Mapping[str, str] | None = None
) -> JobSpec:
    """Converts and checks untrusted values.

    Args:
        values: option names (dashes or underscores) to texts or plain YAML/TOML values. A text
            may stand for any type: `"3"`, `"a,b"` for a list, `"a=b,c=d"` for a mapping, `"none"`
            for an option that may be absent.
        source: where the values come from, for messages: a file name or "command line".
        origins: where single keys come from, if known better: `{"epochs": "job.yaml:3"}`.

    Raises:
        SpecError: with all mistakes: unknown keys, missing ones, wrong types, values out of
            range, and values that contradict each other or name files that are not there.
    """
    given, mistakes = _names(values)
    found: dict[str, Any] = {}
    for key, value in given.items():
        try:
            found[key] = _convert(options()[key], value)
        except _Wrong as wrong:
            mistakes.append(Mistake(key, f"{_seen(value)} is not {wrong}"))
    mistakes += contradictions(found)
    mistakes += [
        Mistake(option.name, f"is missing; it names {option.text}")
        for option in options().values()
        if option.required and option.name not in given
    ]
    if mistakes:
        raise _error(mistakes, source, {_plain(k): v for k, v in (origins or {}).items()})
    return JobSpec(**found)


class _Wrong(Exception):
    """Says what a value should have been."""


def _plain(key: str) -> str:
    return str(key).strip().replace("-", "_")


def _names(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[Mistake]]:
    """Sorts values into known options and mistakes about their names."""
    given: dict[str, Any] = {}
    mistakes: list[Mistake] = []
    for written, value in values.items():
        key = _plain(written)
        if key in given:
            mistakes.append(Mistake(key, "is given twice"))
        elif key in options():
            given[key] = value
        else:
            meant = suggestion(key)
            also = f"; did you mean {meant}?" if meant else ""
            mistakes.append(Mistake(key, f"no such option{also}"))
    return given, mistakes


def suggestion(key: str) -> str | None:
    """The option that somebody who wrote `key` most likely meant, if any."""
    key = _plain(key)
    return _ELSEWHERE.get(key.lower()) or closest(key.lower(), options())


def _convert(option: Option, value: Any) -> Any:
    """Converts one value to its option's type.

    Raises:
        _Wrong: it can't be; the message says what it should be.
    """
    if option.optional and (value is None or str(value).strip().lower() in ("none", "null")):
        return None
    if option.kind in ("text", "list", "mapping"):
        prepared = _text(option, value)
    elif isinstance(value, str):
        prepared = _scalar(option, value.strip())
    else:
        prepared = value
    if isinstance(prepared, bool) != (option.kind == "flag"):
        raise _Wrong(option.allowed)
    if isinstance(prepared, float) and not math.isfinite(prepared):
        raise _Wrong(option.allowed)
    try:
        return msgspec.convert(prepared, option.annotation, strict=option.kind != "number")
    except (msgspec.ValidationError, OverflowError):
        raise _Wrong(option.allowed) from None


def _scalar(option: Option, text: str) -> Any:
    """Reads a flag or a number from text; a choice stays as it is."""
    if option.kind == "choice":
        return text
    if option.kind == "flag":
        if text.lower() not in _TRUE | _FALSE:
            _refuse(option)
        return text.lower() in _TRUE
    try:
        return int(text) if option.kind == "integer" else float(text)
    except ValueError:
        return _integral(option, text)


def _integral(option: Option, text: str) -> int:
    """Reads `1e3` and `8.0` as whole numbers."""
    try:
        number = float(text)
    except ValueError:
        _refuse(option)
    if option.kind != "integer" or not number.is_integer():
        _refuse(option)
    return int(number)


def _refuse(option: Option) -> NoReturn:
    raise _Wrong(option.allowed)


def _text(option: Option, value: Any) -> Any:
    """Prepares a text, a list of texts or a mapping of texts."""
    if isinstance(value, bool):
        _refuse(option)
    if option.kind == "list":
        return _items(option, value)
    if option.kind == "mapping":
        return _pairs(option, value)
    if not isinstance(value, str | int | float):
        _refuse(option)
    text = str(value)
    return str(Path(text).expanduser()) if option.name in PATHS else text


def _items(option: Option, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        parts = [value] if option.name in FREE_TEXT else value.split(",")
    elif isinstance(value, list | tuple):
        parts = [str(part) for part in value]
        if option.name not in FREE_TEXT:
            parts = [piece for part in parts for piece in part.split(",")]
    else:
        _refuse(option)
    return tuple(part.strip() for part in parts if part.strip())


def _pairs(option: Option, value: Any) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {str(key): str(part) for key, part in value.items()}
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        _refuse(option)
    pairs: dict[str, str] = {}
    for part in (piece for entry in parts for piece in str(entry).split(",") if piece.strip()):
        key, equals, text = part.partition("=")
        if not (equals and key.strip() and text.strip()):
            _refuse(option)
        pairs[key.strip()] = text.strip()
    return pairs


def _seen(value: Any) -> str:
    """The value as a person would recognise it, shortened."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _error(mistakes: list[Mistake], source: str, origins: Mapping[str, str]) -> SpecError:
    """One error for all mistakes; a single one stands on one line."""
    lines = [
        f"{origins[m.key]}: {m.text}" if m.key in origins else f"{m.key}: {m.text}"
        for m in mistakes
    ]
    if len(lines) == 1:
        named = mistakes[0].key in origins
        return SpecError(lines[0] if named else f"{source}: {lines[0]}", hint=_HINT)
    body = "\n".join(f"  {line}" for line in lines)
    return SpecError(f"{source}: {len(lines)} mistakes\n{body}", hint=_HINT)
