"""OpenAI messages: `messages`, a list of `role` and `content`.

`content` may be text or a list of text parts. `"weight": 0` on an assistant's message leaves it
out of the loss, as in OpenAI's fine-tuning files. Tools, functions and pictures are refused: to
train them as if they were text would teach something that nobody asked for.
"""

from __future__ import annotations

from llamaforge.data.formats.layout import Empty, Format, chat
from llamaforge.data.formats.record import Record
from llamaforge.data.formats.roles import check_role, has_turns, refuse_tools
from llamaforge.data.rows import Role, Row, Turn

ROLES: dict[str, Role] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
}


def _row(record: Record) -> Row | Empty:
    refuse_tools(record)
    turns = [_turn(turn, number) for number, turn in enumerate(record.inner("messages"), start=1)]
    return chat(record, turns)


def _turn(turn: Record, number: int) -> Turn:
    refuse_tools(turn)
    role = check_role(turn, turn.text("role"), ROLES, number)
    return Turn(role=role, content=_content(turn), trained=_weight(turn) != 0)


def _content(turn: Record) -> str:
    """The message's text; text parts are joined as they stand."""
    column = turn.fields.get("content", "content")
    parts = turn.values.get(column)
    if not isinstance(parts, list):
        return turn.text("content")
    texts = []
    for part in parts:
        match part:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case _:
                raise turn.wrong("content", part, 'text, or parts like {"type": "text", …}')
    return "".join(texts)


def _weight(turn: Record) -> object:
    weight = turn.values.get("weight")
    if weight is not None and weight not in (0, 1):
        raise turn.wrong("weight", weight, "0 or 1")
    return 1 if weight is None else weight


MESSAGES = Format(
    name="messages",
    needs=("messages",),
    may=("role", "content"),
    convert=_row,
    shaped=lambda record: has_turns(record, "messages", ("role", "content")),
)
