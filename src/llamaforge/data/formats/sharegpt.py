"""ShareGPT: `conversations`, a list of `from` and `value`; a `system` column where present."""

from __future__ import annotations

from llamaforge.data.formats.layout import Empty, Format, chat
from llamaforge.data.formats.record import Record
from llamaforge.data.formats.roles import check_role, has_turns, refuse_tools
from llamaforge.data.rows import Role, Row, Turn

ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
}


def _row(record: Record) -> Row | Empty:
    refuse_tools(record)
    system = record.optional("system")
    turns = [Turn(role="system", content=system)] if system.strip() else []
    for number, turn in enumerate(record.inner("conversations"), start=1):
        role = check_role(turn, turn.text("from"), ROLES, number)
        turns.append(Turn(role=role, content=turn.text("value")))
    return chat(record, turns)


SHAREGPT = Format(
    name="sharegpt",
    needs=("conversations",),
    may=("system", "from", "value"),
    convert=_row,
    shaped=lambda record: has_turns(record, "conversations", ("from", "value")),
)
