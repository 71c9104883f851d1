"""The canonical row: what every dataset becomes before anything else looks at it.

There are three kinds: a conversation, a prompt with its completion, and plain text. Whatever file
and layout a row came from, later code (tokens, held-out split, preview) knows only these. On disk
a row is one line of JSON, `kind` first.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from llamaforge.errors import IntegrityError

Role = Literal["system", "user", "assistant"]


class Turn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message of a conversation."""

    role: Role
    content: str
    trained: bool = True
    """False for an assistant's turn that the loss leaves out (`"weight": 0` in OpenAI's files)."""


class Row(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What all kinds of rows have. Use `Chat`, `Completion` or `Text`."""

    line: int
    """Where it came from: 1-based line of a JSON-lines file, 1-based row of any other file."""


class Chat(Row, frozen=True, kw_only=True, tag="chat"):
    """A conversation; at least one assistant's turn is trained and not empty."""

    turns: tuple[Turn, ...]


class Completion(Row, frozen=True, kw_only=True, tag="completion"):
    """A prompt and what follows it, as they stand: no chat template is put around them."""

    prompt: str
    completion: str


class Text(Row, frozen=True, kw_only=True, tag="text"):
    """Plain text, trained from its first word to its last."""

    text: str


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Chat | Completion | Text)


def encode(row: Row) -> bytes:
    """The row as one line of JSON, with its newline. Equal rows give equal bytes."""
    return _encoder.encode(row) + b"\n"


def decode(line: bytes | memoryview) -> Row:
    """The row that `encode` wrote.

    Raises:
        IntegrityError: the bytes are not a canonical row.
    """
    try:
        row: Row = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise IntegrityError(
            f"a canonical row is damaged: {error}", hint="remove the cached file and run again"
        ) from error
    return row
