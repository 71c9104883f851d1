"""Where in a rendered conversation the model speaks: the characters that the loss may count.

Nothing is known about any template. It is rendered again without what follows, and the texts are
compared: what an assistant's turn adds to the prompt before it is what the model has to write.
One more rendering with a marker for an answer shows what the template puts after answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llamaforge.data.rows import Chat, Turn
from llamaforge.errors import DataError
from llamaforge.train.rows.template import Template

_MARKER = "llamaforge answers here"


@dataclass(frozen=True)
class Span:
    """One assistant's turn in the rendered text, in characters."""

    start: int
    """The first character that the model writes: the prompt ends before it."""
    end: int
    """Past the answer's last character."""
    stop: int
    """Past whatever the template puts after the answer: end token, new lines."""


@dataclass(frozen=True)
class Conversation:
    """A rendered conversation."""

    text: str
    spans: tuple[Span, ...]
    """The answers that are trained and could be told apart, in order."""
    last_turn_only: bool
    """True when the template rewrites earlier turns (drops their thinking, for example), so that
    only the last answer can be trained as the model would write it."""


def speak(template: Template, row: Chat, *, whole: bool = False) -> Conversation:
    """Renders a conversation and finds the trained answers.

    Args:
        template: the chat template.
        row: the conversation.
        whole: every turn counts. By default what follows the last trained answer is left out: it
            can't change the loss.

    Raises:
        DataError: the template refuses the row, or changes it so much that no answer is found.
    """
    spoken = [n for n, turn in enumerate(row.turns) if turn.role == "assistant"]
    wanted = spoken if whole else [n for n in spoken if row.turns[n].trained]
    turns = row.turns if whole else row.turns[: wanted[-1] + 1]
    text = template.render(turns, line=row.line)
    spans = [_span(template, text, turns, number, row.line) for number in wanted]
    found = tuple(span for span in spans if span is not None)
    if whole or len(found) == len(spans):
        return Conversation(text, found, last_turn_only=False)
    return Conversation(text, (_last(template, text, turns, row.line),), last_turn_only=True)


def _span(
    template: Template, text: str, turns: Sequence[Turn], number: int, line: int
) -> Span | None:
    """The place of turn `number` in `text`; None when the template is not consistent there."""
    through = text
    if number + 1 < len(turns):
        through = template.render(turns[: number + 1], line=line)
    head, tail = _around(template, turns[:number], line)
    before = template.render(turns[:number], ask=True, line=line) if number else head
    end = len(through) - len(tail)
    same = text[:end] == through[:end] and through.endswith(tail)
    if not same or not text.startswith(before) or end < len(before):
        return None
    return Span(len(before), end, end + _alike(tail, text[end:]))


def _last(template: Template, text: str, turns: Sequence[Turn], line: int) -> Span:
    """The place of the last turn, for a template that is not consistent."""
    head, tail = _around(template, turns[:-1], line)
    before = template.render(turns[:-1], ask=True, line=line) if len(turns) > 1 else head
    start = next((len(text_) for text_ in (before, head) if text.startswith(text_)), None)
    if start is None:
        raise DataError(
            f"row {line} of the dataset: the chat template ({template.origin}) changes the prompt "
            "once an answer follows, so the answer can't be told from it",
            hint="give another template with --chat-template FILE, or use --train-on all",
        )
    end = len(text) - len(tail) if text.endswith(tail) else len(text.rstrip())
    return Span(start, max(start, end), len(text))


def _around(template: Template, turns: Sequence[Turn], line: int) -> tuple[str, str]:
    """What the template puts before and after an answer that follows `turns`."""
    marker = Turn(role="assistant", content=_MARKER)
    head, found, tail = template.render([*turns, marker], line=line).rpartition(_MARKER)
    return (head, tail) if found else (tail, "")


def _alike(one: str, other: str) -> int:
    """How many characters two texts have in common from their start."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))
