"""Plain text, one document per row."""

from __future__ import annotations

from llamaforge.data.formats.layout import Empty, Format
from llamaforge.data.formats.record import Record
from llamaforge.data.rows import Row, Text


def _row(record: Record) -> Row | Empty:
    text = record.text("text")
    return Text(line=record.line, text=text) if text.strip() else Empty.TEXT


TEXT = Format(name="text", needs=("text",), convert=_row)
