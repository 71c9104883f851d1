"""CSV with a header line. The separator is whichever of comma, semicolon and tab parts it most."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from llamaforge.data.readers.lines import LONGEST_ROW, text_lines
from llamaforge.errors import DataError

SEPARATORS = (",", ";", "\t")


def read_csv(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yields (1-based row number without the header, column name to text).

    Memory is bounded by the longest row. Blank lines are skipped.

    Raises:
        DataError: quotes don't match, a row has more or fewer fields than the header, or the
            header names a column twice.
    """
    csv.field_size_limit(LONGEST_ROW)  # the default of 128 KiB refuses long conversations
    lines = (line for _, line in text_lines(path))
    first = next(lines, "")
    table = csv.reader(_again(first, lines), delimiter=_separator(first), strict=True)
    try:
        header = _header(next(table, []), path)
        number = 0
        for values in table:
            if not values:
                continue
            number += 1
            if len(values) != len(header):
                raise DataError(
                    f"{path}: row {number} (ending in line {table.line_num}) has {len(values)} "
                    f"fields, the header has {len(header)}",
                    hint='put text that holds a separator or a new line into "double quotes"',
                )
            yield number, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise DataError(
            f"{path}:{table.line_num}: not valid CSV: {error}",
            hint='quotes inside quoted text are doubled: "She said ""yes""."',
        ) from error


def _again(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _separator(header: str) -> str:
    return max(SEPARATORS, key=header.count)


def _header(names: list[str], path: Path) -> list[str]:
    names = [name.strip() for name in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"{path}:1: the header names {twice[0]!r} twice",
            hint="the first line of a CSV file names its columns, each once",
        )
    return names
