"""Which layout a file has: the one that most of its first rows fit, and what to say when none does.

Where several fit equally, the more telling one wins: many alpaca files also carry a `text` column
with the whole prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llamaforge.data.formats.alpaca import ALPACA
from llamaforge.data.formats.completion import COMPLETION
from llamaforge.data.formats.layout import Format
from llamaforge.data.formats.messages import MESSAGES
from llamaforge.data.formats.record import Record
from llamaforge.data.formats.sharegpt import SHAREGPT
from llamaforge.data.formats.text import TEXT
from llamaforge.errors import SpecError
from llamaforge.spec.options import closest

FORMATS: tuple[Format, ...] = (MESSAGES, SHAREGPT, ALPACA, COMPLETION, TEXT)
"""In order of preference."""

SAMPLE = 20
"""Rows that detection looks at."""

_OTHER_NAMES = {
    "messages": ("conversations", "conversation", "dialog", "chat"),
    "conversations": ("conversation", "dialog", "items"),
    "instruction": ("question", "query", "prompt", "task"),
    "input": ("context",),
    "output": ("response", "answer", "completion", "target"),
    "completion": ("response", "answer", "output"),
    "prompt": ("question", "query"),
    "text": ("content", "document", "body"),
}


def named(name: str) -> Format:
    """The layout of that name.

    Raises:
        SpecError: there is none.
    """
    for layout in FORMATS:
        if layout.name == name:
            return layout
    names = ("auto", *(layout.name for layout in FORMATS))
    meant = closest(name, names)
    raise SpecError(
        f"format {name!r} is not one of {', '.join(names)}",
        hint=f"did you mean --format {meant}?" if meant else "",
    )


def check_fields(fields: Mapping[str, str], layouts: Sequence[Format]) -> None:
    """Refuses a mapping of a name that none of the layouts knows.

    Raises:
        SpecError: names the key and what it could have been.
    """
    known = tuple(dict.fromkeys(name for f in layouts for name in (*f.needs, *f.may)))
    for name in fields:
        if name not in known:
            meant = closest(name, known)
            hint = f"did you mean {meant}={fields[name]}?" if meant else ""
            raise SpecError(
                f"fields: {name!r} is not a name that {_or(layouts)} knows ({', '.join(known)})",
                hint=hint or "write NAME=COLUMN: our name first, the file's column second",
            )


def detect(records: Sequence[Record]) -> Format:
    """The layout of a file, from its first rows (at least one).

    Raises:
        DataError: no row fits any layout; names the first row, its keys and a mapping to try.
    """
    fits = {layout.name: sum(map(layout.fits, records)) for layout in FORMATS}
    best = max(FORMATS, key=lambda layout: fits[layout.name])
    if fits[best.name]:
        return best
    first = records[0]
    seen = ", ".join(repr(key) for key in first.values) or "nothing"
    raise first.error(f"can't tell the layout of a row with {seen}", _suggestion(first))


def _suggestion(record: Record) -> str:
    for layout in FORMATS:
        found = {name: _column(record, name) for name in (*layout.needs, *layout.may)}
        mapping = {name: column for name, column in found.items() if column and name != column}
        trial = Record(record.values, record.line, record.where, {**record.fields, **mapping})
        if mapping and layout.fits(trial):
            pairs = ",".join(f"{name}={column}" for name, column in mapping.items())
            return f"perhaps: --format {layout.name} --fields {pairs}"
    names = ", ".join(f"{f.name} ({' and '.join(f.needs)})" for f in FORMATS)
    return f"map your columns with --fields NAME=COLUMN,… to one of: {names}"


def _column(record: Record, name: str) -> str | None:
    """The column that probably holds what we call `name`."""
    candidates = (record.fields.get(name, name), name, *_OTHER_NAMES.get(name, ()))
    return next((column for column in candidates if column in record.values), None)


def _or(layouts: Sequence[Format]) -> str:
    return layouts[0].name if len(layouts) == 1 else "any layout"
