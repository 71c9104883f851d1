"""A JSON document: an array of objects, or `{"data": [objects]}`. It is read into memory whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from llamaforge.data.readers.decode import decode_json
from llamaforge.data.readers.lines import decode_utf8
from llamaforge.errors import DataError

WRAPPER = "data"


def read_json(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yields (1-based row number, object).

    Raises:
        DataError: the file is not UTF-8, not JSON, or not an array of objects.
    """
    document = decode_json(decode_utf8(path.read_bytes(), path), path)
    for number, value in enumerate(_rows(document, path), start=1):
        if not isinstance(value, dict):
            raise DataError(
                f"{path}: row {number}: a row must be a JSON object, this is {str(value)[:40]!r}",
                hint='an array of rows looks like [{"instruction": "…", "output": "…"}]',
            )
        yield number, value


def _rows(document: object, path: Path) -> list[object]:
    if isinstance(document, list):
        return document
    if isinstance(document, dict) and isinstance(document.get(WRAPPER), list):
        rows: list[object] = document[WRAPPER]
        return rows
    seen = f"an object with {', '.join(map(repr, document))}" if isinstance(document, dict) else ""
    raise DataError(
        f"{path}: holds {seen or 'a single value'}, not an array of rows",
        hint='write [row, row, …], {"data": [row, row, …]}, or one row per line as FILE.jsonl',
    )
