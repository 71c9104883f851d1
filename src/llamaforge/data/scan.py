"""One pass over a person's file: canonical rows out, and a report of what was used and why not.

Wrong types stop the pass with the row named. Rows that are merely empty are dropped and counted.
Duplicates are kept, since repeating a row may be meant, and counted.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path

import msgspec
import numpy as np

from llamaforge.data.formats import FORMATS, Empty, Format, Record, detect, named
from llamaforge.data.formats.detect import SAMPLE, check_fields
from llamaforge.data.readers import Source, open_source
from llamaforge.data.rows import Row, encode
from llamaforge.data.writing import CanonicalFile, writing
from llamaforge.errors import DataError

SHOWN = 5
"""Places that a report names per reason."""


class Drop(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that were left out for one reason."""

    reason: str
    rows: int
    first: tuple[str, ...]
    """The first few places, such as `rows.jsonl:17`."""


class ScanReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one pass over a dataset found."""

    source: str
    """The file as it was named."""
    format: str
    """The layout that was detected or asked for."""
    rows: int
    """Rows used."""
    dropped: tuple[Drop, ...] = ()
    duplicates: int = 0
    """Rows that are equal to an earlier one; they are used all the same."""
    sha256: str
    """SHA-256 of the canonical rows' bytes."""
    size: int
    """Bytes of the canonical rows."""

    @property
    def rows_dropped(self) -> int:
        """Rows that were left out, for any reason."""
        return sum(drop.rows for drop in self.dropped)


def canonicalise(
    source: Path,
    *,
    out: Path,
    format: str = "auto",
    fields: Mapping[str, str] | None = None,
) -> ScanReport:
    """Writes a dataset's usable rows to `out` as canonical JSON lines, in the file's order.

    `out` is written aside and renamed: it is there whole, or as it was. Memory is bounded (but for
    JSON arrays, see `data.readers`) apart from 8 bytes a row that find duplicates.

    Args:
        source: a json, jsonl, csv or parquet file.
        out: where canonical rows go; its folder must exist.
        format: a layout's name, or `auto`.
        fields: canonical name to the file's column name, where they differ.

    Raises:
        DataError: the file, or a row of it, can't be used; names file and line.
        SpecError: `format` or `fields` name something unknown.
    """
    layouts = FORMATS if format == "auto" else (named(format),)
    fields = fields or {}
    check_fields(fields, layouts)
    file = open_source(source)
    numbered = file.rows()
    first = list(islice(numbered, SAMPLE))
    if not first:
        raise DataError(f"{source} has no rows", hint="it needs at least one")
    sample = [Record(values, line, file.where, fields) for line, values in first]
    layout = detect(sample) if format == "auto" else layouts[0]
    records = (
        Record(values, line, file.where, fields, layout.name)
        for line, values in chain(first, numbered)
    )
    dropped, prints = _Drops(file), _Fingerprints()
    with writing(out) as written:
        for row in _usable(records, layout, dropped):
            prints.add(row)
            written.append(encode(row))
        if not written.rows:
            raise DataError(f"{source} has no usable rows: {dropped}", hint="see docs/DATA.md")
    return _report(source, layout, written.done, dropped, prints.repeated())


def _usable(records: Iterator[Record], layout: Format, dropped: _Drops) -> Iterator[Row]:
    for record in records:
        row = layout.convert(record)
        if isinstance(row, Empty):
            dropped.add(row, record.line)
        else:
            yield row


def _report(
    source: Path, layout: Format, done: CanonicalFile, dropped: _Drops, duplicates: int
) -> ScanReport:
    return ScanReport(
        source=str(source),
        format=layout.name,
        rows=done.rows,
        dropped=dropped.report(),
        duplicates=duplicates,
        sha256=done.sha256,
        size=done.size,
    )


class _Drops:
    """Counts what is left out."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._count: dict[Empty, int] = {}
        self._first: dict[Empty, list[str]] = {}

    def add(self, reason: Empty, line: int) -> None:
        self._count[reason] = self._count.get(reason, 0) + 1
        first = self._first.setdefault(reason, [])
        if len(first) < SHOWN:
            first.append(self._source.where(line))

    def report(self) -> tuple[Drop, ...]:
        return tuple(
            Drop(reason=reason.value, rows=count, first=tuple(self._first[reason]))
            for reason, count in self._count.items()
        )

    def __str__(self) -> str:
        return "; ".join(f"{d.rows} with {d.reason} ({d.first[0]})" for d in self.report())


class _Fingerprints:
    """Finds equal rows in 8 bytes a row: at ten million rows one false find in 300,000 files."""

    def __init__(self) -> None:
        self._seen = array("Q")

    def add(self, row: Row) -> None:
        content = encode(msgspec.structs.replace(row, line=0))
        short = hashlib.blake2b(content, digest_size=8).digest()
        self._seen.append(int.from_bytes(short, "little"))

    def repeated(self) -> int:
        return len(self._seen) - len(np.unique(np.frombuffer(self._seen, np.uint64)))
