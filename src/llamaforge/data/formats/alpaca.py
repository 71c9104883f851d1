"""Alpaca: `instruction`, `input`, `output`; `system` and `history` where present.

The input follows its instruction after an empty line, as one user's turn. `history` is a list of
earlier [question, answer] pairs; their answers are trained as well.
"""

from __future__ import annotations

from llamaforge.data.formats.layout import Empty, Format, chat
from llamaforge.data.formats.record import Record
from llamaforge.data.rows import Row, Turn


def _row(record: Record) -> Row | Empty:
    asked = (record.text("instruction"), record.optional("input"))
    question = "\n\n".join(part for part in asked if part.strip())
    answer = record.text("output")
    if not question:
        return Empty.INSTRUCTION
    if not answer.strip():
        return Empty.COMPLETION
    turns = _system(record) + _history(record)
    turns.append(Turn(role="user", content=question))
    turns.append(Turn(role="assistant", content=answer))
    return chat(record, turns)


def _system(record: Record) -> list[Turn]:
    text = record.optional("system")
    return [Turn(role="system", content=text)] if text.strip() else []


def _history(record: Record) -> list[Turn]:
    turns: list[Turn] = []
    for pair in record.items("history") if record.has("history") else []:
        match pair:
            case [str(question), str(answer)]:
                turns.append(Turn(role="user", content=question))
                turns.append(Turn(role="assistant", content=answer))
            case _:
                raise record.wrong("history", pair, "a list of [question, answer] pairs")
    return turns


ALPACA = Format(
    name="alpaca",
    needs=("instruction", "output"),
    may=("input", "system", "history"),
    convert=_row,
)
