"""A dataset file: which reader it needs, by its ending and a look at its first bytes.

The look matters more than the ending: hub datasets often carry JSON lines in a `.json` file.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from llamaforge.data.readers.csv_table import read_csv
from llamaforge.data.readers.json_array import WRAPPER, read_json
from llamaforge.data.readers.jsonl import read_jsonl
from llamaforge.data.readers.lines import LONGEST_ROW
from llamaforge.data.readers.parquet import read_parquet
from llamaforge.errors import DataError
from llamaforge.spec.options import closest

Kind = Literal["jsonl", "json", "csv", "parquet"]

ENDINGS: dict[str, Kind] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}

_READERS: dict[Kind, Callable[[Path], Iterator[tuple[int, Mapping[str, object]]]]] = {
    "jsonl": read_jsonl,
    "json": read_json,
    "csv": read_csv,
    "parquet": read_parquet,
}

_REFUSED = (
    (b"\x1f\x8b", "is compressed with gzip", "gunzip --keep {}"),
    (b"BZh", "is compressed with bzip2", "bunzip2 --keep {}"),
    (b"\xfd7zXZ", "is compressed with xz", "unxz --keep {}"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd", "unzstd --keep {}"),
    (b"PK\x03\x04", "is a zip archive or a spreadsheet", "unzip {}, or save the table as CSV"),
    (b"ARROW1", "is an Arrow file", "write it as Parquet: datasets' to_parquet() does"),
)


@dataclass(frozen=True)
class Source:
    """A dataset file that can be read any number of times."""

    path: Path
    kind: Kind

    def rows(self) -> Iterator[tuple[int, Mapping[str, object]]]:
        """Yields (1-based line or row number, column name to value), in the file's order.

        Raises:
            DataError: something in the file can't be read; names the place.
        """
        return _READERS[self.kind](self.path)

    def where(self, number: int) -> str:
        """The place of a row, as an editor or a person finds it: `rows.jsonl:17`."""
        return f"{self.path}:{number}" if self.kind == "jsonl" else f"{self.path}: row {number}"


def open_source(path: Path) -> Source:
    """Finds the reader for a dataset file.

    Raises:
        DataError: there is no such file, it is a folder, empty, compressed, or of no known kind.
    """
    try:
        return Source(path, _kind(path))
    except FileNotFoundError as error:
        raise _missing(path) from error
    except IsADirectoryError as error:
        raise _folder(path) from error
    except OSError as error:
        raise DataError(
            f"{path}: can't be read: {error.strerror}", hint=f"look at it with: ls -l {path}"
        ) from error


def _kind(path: Path) -> Kind:
    with path.open("rb") as file:
        if not path.is_file():
            raise DataError(f"{path} is not a regular file", hint="save the rows in a file first")
        start = file.read(4096)
    for magic, what, how in _REFUSED:
        if start.startswith(magic):
            raise DataError(f"{path} {what}", hint=how.format(path))
    if start.startswith(b"PAR1"):
        return "parquet"
    text = start.removeprefix(codecs.BOM_UTF8).lstrip()
    if not text and path.stat().st_size <= len(start):
        raise DataError(f"{path} is empty", hint="it needs at least one row")
    return _by_ending(path, text)


def _by_ending(path: Path, text: bytes) -> Kind:
    kind = ENDINGS.get(path.suffix.lower())
    if kind == "parquet":
        raise DataError(f"{path} is not a Parquet file: it starts with {text[:8]!r}")
    if kind == "csv":
        return "csv"
    if text.startswith(b"["):
        return "json"
    if kind == "jsonl" or text.startswith(b"{"):
        return "jsonl" if kind == "jsonl" or _first_line_is_a_row(path) else "json"
    if kind == "json":
        return "json"
    raise DataError(
        f"{path}: can't tell what kind of file this is",
        hint=f"name it by its kind: {', '.join(ENDINGS)}",
    )


def _first_line_is_a_row(path: Path) -> bool:
    """Whether the first line that is not blank is a whole object and not the `data` wrapper."""
    with path.open("rb") as file:
        line = b""
        while not line.strip():
            line = file.readline(LONGEST_ROW).removeprefix(codecs.BOM_UTF8)
    try:
        value: object = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(value, dict) and not isinstance(value.get(WRAPPER), list)


def _missing(path: Path) -> DataError:
    folder = path.parent
    if not folder.is_dir():
        return DataError(f"there is no file {path}: no folder {folder}", hint="check the path")
    beside = _datasets(folder)
    near = closest(path.name, beside)
    if near:
        return DataError(f"there is no file {path}", hint=f"did you mean {folder / near}?")
    held = f"{folder} holds {', '.join(beside[:5])}" if beside else "check the path"
    return DataError(f"there is no file {path}", hint=held)


def _folder(path: Path) -> DataError:
    inside = _datasets(path)
    hint = f"name one of its files: {path / inside[0]}" if inside else "name a file with rows"
    return DataError(f"{path} is a folder, not a file", hint=hint)


def _datasets(folder: Path) -> tuple[str, ...]:
    found = (entry.name for entry in folder.iterdir() if entry.suffix.lower() in ENDINGS)
    return tuple(sorted(found))
