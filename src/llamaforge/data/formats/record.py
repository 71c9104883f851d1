"""One row as it was read, asked for its values by canonical name.

It knows its place in the file and the person's field mapping, so that every complaint about a
value names file, line, column and what to write instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from llamaforge.errors import DataError
from llamaforge.spec.options import closest

_SHOWN = 60
"""Characters of a wrong value that a message shows."""


@dataclass(frozen=True)
class Record:
    """A row, or a turn inside a row."""

    values: Mapping[str, object]
    line: int
    """1-based line or row number."""
    where: Callable[[int], str]
    """Turns `line` into words; called only for messages."""
    fields: Mapping[str, str]
    """Canonical name to the file's name, for the names that differ."""
    layout: str = "auto"
    """The layout that the row is read as, for messages."""

    def has(self, name: str) -> bool:
        """Whether the file has a column for this canonical name; its value may be null."""
        return self._column(name) in self.values

    def text(self, name: str) -> str:
        """A required text; null counts as empty.

        Raises:
            DataError: the column is missing or holds something else.
        """
        if not self.has(name):
            raise self._lacks(name)
        return self.optional(name)

    def optional(self, name: str) -> str:
        """A text, empty where the column is missing or null.

        Raises:
            DataError: the column holds something else.
        """
        value = self.values.get(self._column(name))
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.wrong(name, value, "text")
        return value

    def items(self, name: str) -> list[object]:
        """A list, empty where null; a text that holds a JSON array is read as one (CSV files).

        Raises:
            DataError: the column is missing or holds something else.
        """
        if not self.has(name):
            raise self._lacks(name)
        value = self.values[self._column(name)]
        if isinstance(value, str) and value.lstrip().startswith("["):
            try:
                value = msgspec.json.decode(value)
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                raise self.wrong(name, value, f"a JSON array ({error})") from error
        if value is None or value == "":
            return []
        if not isinstance(value, list):
            raise self.wrong(name, value, "a list")
        return value

    def inner(self, name: str) -> list[Record]:
        """The objects of a list, each as a record of its own.

        Raises:
            DataError: the value is not a list of objects.
        """
        records = []
        for item in self.items(name):
            if not isinstance(item, dict):
                raise self.wrong(name, item, "an object in a list")
            records.append(Record(item, self.line, self.where, self.fields, self.layout))
        return records

    def error(self, text: str, hint: str) -> DataError:
        """A complaint about this row that names its place."""
        return DataError(f"{self.where(self.line)}: {text}", hint=hint)

    def wrong(self, name: str, value: object, wanted: str) -> DataError:
        """The complaint that a value has the wrong type."""
        shown = repr(value) if len(repr(value)) <= _SHOWN else repr(value)[:_SHOWN] + "…"
        return self.error(
            f"{self._column(name)!r} must be {wanted}, this is {_kind(value)}: {shown}",
            "correct this row, or map another column with --fields",
        )

    def _column(self, name: str) -> str:
        return self.fields.get(name, name)

    def _lacks(self, name: str) -> DataError:
        column = self._column(name)
        seen = ", ".join(repr(key) for key in self.values) or "nothing"
        near = closest(column, tuple(self.values))
        example = near or next(iter(self.values), "COLUMN")
        meant = f"did you mean {near!r}? " if near else ""
        return self.error(
            f"no {column!r}, which {self.layout} needs; this row has {seen}",
            f"{meant}say --fields {name}={example}, or another layout with --format",
        )


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, (list, tuple)):
        return "a list"
    return "an object" if isinstance(value, dict) else f"of type {type(value).__name__}"
