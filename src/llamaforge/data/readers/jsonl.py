"""JSON lines: one object per line. Blank lines are skipped; numbers are those of the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from llamaforge.data.readers.decode import decode_json
from llamaforge.data.readers.lines import text_lines
from llamaforge.errors import DataError


def read_jsonl(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yields (line number, object); memory is bounded by the longest line.

    Raises:
        DataError: a line is not a JSON object, or not UTF-8.
    """
    for number, line in text_lines(path):
        if not line.strip():
            continue
        value = decode_json(line.rstrip(), path, number)
        if not isinstance(value, dict):
            raise DataError(
                f"{path}:{number}: a row must be a JSON object, this is {line.strip()[:40]!r}",
                hint='every line looks like {"instruction": "…", "output": "…"}',
            )
        yield number, value
