"""Prompt and completion, two texts that are trained exactly as they stand."""

from __future__ import annotations

from llamaforge.data.formats.layout import Empty, Format
from llamaforge.data.formats.record import Record
from llamaforge.data.rows import Completion, Row


def _row(record: Record) -> Row | Empty:
    prompt, completion = record.text("prompt"), record.text("completion")
    if not completion.strip():
        return Empty.COMPLETION
    return Completion(line=record.line, prompt=prompt, completion=completion)


COMPLETION = Format(
    name="prompt-completion",
    needs=("prompt", "completion"),
    convert=_row,
)
