"""What a layout is: the names it needs, the names it may use, and how its rows become canonical."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from llamaforge.data.formats.record import Record
from llamaforge.data.rows import Chat, Row, Turn


class Empty(str, Enum):
    """Why a row that is well-formed has nothing to train; such rows are dropped and counted."""

    INSTRUCTION = "empty instruction"
    COMPLETION = "empty completion"
    TEXT = "empty text"
    NO_ASSISTANT = "no assistant turn"
    UNTRAINED = "every assistant turn has weight 0"


@dataclass(frozen=True, kw_only=True)
class Format:
    """One layout of rows."""

    name: str
    needs: tuple[str, ...]
    """Columns that every row must have, by canonical name."""
    may: tuple[str, ...] = ()
    """Columns, and keys inside turns, that are used where they are present."""
    convert: Callable[[Record], Row | Empty]
    """Makes a canonical row; raises DataError for a wrong type or an unknown role."""
    shaped: Callable[[Record], bool] = lambda _: True
    """Whether the values of a row that has all needed columns look like this layout."""

    def fits(self, record: Record) -> bool:
        """Whether a row looks like this layout; used for detection only."""
        return all(record.has(name) for name in self.needs) and self.shaped(record)


def chat(record: Record, turns: list[Turn]) -> Row | Empty:
    """A conversation, unless no assistant's turn in it says anything that is trained."""
    answers = [turn for turn in turns if turn.role == "assistant"]
    if not answers:
        return Empty.NO_ASSISTANT
    if not any(turn.content.strip() for turn in answers):
        return Empty.COMPLETION
    if not any(turn.trained and turn.content.strip() for turn in answers):
        return Empty.UNTRAINED
    return Chat(line=record.line, turns=tuple(turns))
