"""JSON text to Python, with the place of a mistake in words that an editor understands.

msgspec parses the good case quickly. Its errors count bytes, so the bad case is parsed a second
time by the standard library, whose errors name line and column.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from llamaforge.errors import DataError

_decoder = msgspec.json.Decoder()


def decode_json(text: str, path: Path, first_line: int = 1) -> object:
    """Parses `text`, which starts at the beginning of line `first_line` of `path`.

    Raises:
        DataError: names file, line, column and what is wrong there.
    """
    try:
        value: object = _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise _broken(text, path, first_line) from None
    return value


def _broken(text: str, path: Path, first_line: int) -> DataError:
    where, why = f"{path}:{first_line}", "NaN, Infinity or half of a surrogate pair"
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{path}:{first_line + error.lineno - 1}: column {error.colno}"
        why = error.msg[:1].lower() + error.msg[1:]
    except RecursionError:
        why = "lists or objects are nested too deeply"
    return DataError(f"{where}: not valid JSON: {why}", hint="correct or remove this row")
