"""From a canonical row to token ids and the mask of those that the loss counts.

By default the loss counts what the model has to write: the answers and their end tokens. Nothing
is padded, so a tokenizer without a padding token will do.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from llamaforge.data.rows import Chat, Completion, Row, Text, Turn
from llamaforge.errors import ModelError
from llamaforge.train.rows.draft import Draft, Spelled
from llamaforge.train.rows.draft import Tokens as Tokens
from llamaforge.train.rows.spans import Span, speak
from llamaforge.train.rows.template import choose

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TrainOn = Literal["completions", "all"]

_SPARE = 64
"""Tokens beyond the longest row that are still made, so that a cut text ends well past it."""


class Encoder:
    """Makes tokens of rows. May be used from several threads; the same row gives the same tokens.

    Args:
        tokenizer: a fast tokenizer of transformers.
        max_length: tokens per row; longer rows lose their end.
        train_on: `completions` trains answers with their end tokens, `all` every token.
        template: Jinja to use in place of the model's chat template.

    Raises:
        ModelError: the tokenizer is a slow one, which can't tell where a token came from.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        train_on: TrainOn = "completions",
        template: str | None = None,
    ) -> None:
        if not tokenizer.is_fast:
            raise ModelError(
                f"the tokenizer {type(tokenizer).__name__} is a slow one: it can't say which "
                "characters a token stands for, and loss masks need that",
                hint="use a model with a tokenizer.json",
            )
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.train_on = train_on
        self.template = choose(tokenizer, template)
        self.begin: int | None = tokenizer.bos_token_id
        self.end: int | None = tokenizer.eos_token_id
        self._lock = threading.Lock()
        self._marks = frozenset(tokenizer.all_special_ids) | frozenset(
            tokenizer.added_tokens_decoder
        )
        self._start = self._usual_start()
        longest = max((len(token) for token in tokenizer.get_vocab()), default=1)
        self._most_characters = (max_length + _SPARE) * longest

    def encode(self, row: Row) -> Tokens:
        """The tokens of a row, at most `max_length`.

        Raises:
            DataError: the chat template refuses the row; names its line.
        """
        if isinstance(row, Chat):
            draft = self._chat(row)
        elif isinstance(row, Completion):
            draft = self._parts(row.prompt, row.completion)
        elif isinstance(row, Text):
            draft = self._parts("", row.text)
        else:
            raise TypeError(f"{type(row).__name__} is not a kind of row")
        if self.train_on == "all":
            draft.train_all(self.end)
        return draft.done(self.max_length)

    def prompt(self, turns: Sequence[Turn]) -> NDArray[np.int32]:
        """Ids, int32 [tokens], after which a chat model answers; never cut.

        Raises:
            DataError: the chat template refuses the turns.
        """
        text = self.template.render(turns, ask=True)
        return np.array(self._spell(text).ids, np.int32)

    def plain_prompt(self, text: str) -> NDArray[np.int32]:
        """Ids, int32 [tokens], of a text to go on with: as prompts of prompt-completion rows."""
        return np.array([*self._start, *self._spell(text).ids], np.int32)

    def text(self, ids: Sequence[int] | NDArray[np.int32]) -> str:
        """The text of ids, special tokens written out."""
        with self._lock:
            return str(
                self.tokenizer.decode(
                    [int(i) for i in ids],
                    skip_special_tokens=False,
                    clean_up_tokenization_spaces=False,
                )
            )

    @cached_property
    def end_ids(self) -> list[int]:
        """Tokens after which an answer is over: what the chat template puts there, then the
        tokenizer's end token. Empty where there is neither.

        Raises:
            DataError: the chat template refuses a plain question and answer.
        """
        turns = (Turn(role="user", content="a"), Turn(role="assistant", content="b"))
        draft = self._chat(Chat(line=0, turns=turns))
        ends = [draft.ids[place] for place in draft.ends]
        return list(dict.fromkeys([*ends, *([] if self.end is None else [self.end])]))

    def _chat(self, row: Chat) -> Draft:
        said = speak(self.template, row, whole=self.train_on == "all")
        spelled = self._spell(said.text[: self._most_characters])
        draft = Draft(whole=len(said.text), last_turn_only=said.last_turn_only)
        draft.kept = min(len(said.text), self._most_characters)
        taken = 0
        for span in said.spans:
            taken = self._answer(draft, spelled, span, said.text, taken)
        draft.add(spelled.ids[taken:], trained=False)
        return draft

    def _answer(self, draft: Draft, spelled: Spelled, span: Span, text: str, taken: int) -> int:
        """Adds what is left before an answer, the answer, and its end token; the last two are
        trained. Returns how many spelled tokens are then taken."""
        first, past = spelled.over(span.start, span.end)
        end = self._end_token(spelled, past, span)
        if end is not None:
            past = end + 1
        else:  # words that the template puts after an answer take the end token's place
            said = len(text[span.start : span.stop].rstrip())
            past = max(past, spelled.over(span.start, span.start + said)[1])
        first = max(first, taken)
        draft.add(spelled.ids[taken:first], trained=False)
        draft.add(spelled.ids[first:past], trained=True)
        if end is not None or (past > first and spelled.ids[past - 1] in self._marks):
            draft.ended()
        elif self.end is not None and span.stop <= draft.kept:
            draft.finish(self.end)
        return max(first, past)

    def _end_token(self, spelled: Spelled, past: int, span: Span) -> int | None:
        """The first special token after an answer, in what the template adds to it."""
        for place in range(past, len(spelled.ids)):
            if spelled.ends[place] > span.stop:
                return None
            if spelled.ids[place] in self._marks:
                return place
        return None

    def _parts(self, prompt: str, completion: str) -> Draft:
        """Start token, prompt, completion, end token; prompt and completion are spelled apart, as
        they are when the model is asked. Without a prompt everything is trained."""
        draft = Draft(whole=len(prompt) + len(completion))
        draft.add(self._start, trained=False)
        for text, trained in ((prompt, False), (completion, True)):
            kept = text[: self._most_characters]
            draft.add(self._spell(kept).ids, trained=trained)
            draft.kept += len(kept)
        if draft.kept == draft.whole and self.end is not None:
            if draft.ids[-1:] == [self.end]:
                draft.ended()
            else:
                draft.finish(self.end)
        return draft

    def _spell(self, text: str, *, special: bool = False) -> Spelled:
        with self._lock:  # a fast tokenizer refuses to be used by two threads at once
            found = self.tokenizer(
                text,
                add_special_tokens=special,
                return_offsets_mapping=True,
                return_attention_mask=False,
                verbose=False,
            )
        return Spelled(
            list(found["input_ids"]),
            [start for start, _ in found["offset_mapping"]],
            [end for _, end in found["offset_mapping"]],
        )

    def _usual_start(self) -> list[int]:
        """The ids that the tokenizer puts before a text by itself: the start token, or nothing."""
        plain, usual = self._spell("a").ids, self._spell("a", special=True).ids
        for length in range(len(usual)):
            if plain and usual[length : length + len(plain)] == plain:
                return usual[:length]
        return []


# ── what a cache of tokens depends on ─────────────────────────────────────────────────────────

_ENCODING = 1
"""Changes whenever the same row would give other tokens than before."""

_TOKENIZER_FILES = (
    "*token*.json",
    "*vocab*",
    "merges.txt",
    "*.model",
    "config.json",
    "chat_template*",
)


def cache_key(
    *,
    data_digest: str,
    model: Path,
    template: str | None,
    max_length: int,
    train_on: TrainOn,
) -> str:
    """SHA-256, in hexadecimal, over everything that decides a dataset's tokens.

    Args:
        data_digest: SHA-256 of the canonical rows.
        model: the model's folder; only its tokenizer's files count.
        template: the chat template of the job, None for the model's.
        max_length: as for `Encoder`.
        train_on: as for `Encoder`.
    """
    import tokenizers
    import transformers

    total = hashlib.sha256()
    parts = [
        f"{_ENCODING} {transformers.__version__} {tokenizers.__version__}",
        f"{data_digest} {max_length} {train_on}",
        "" if template is None else f"template {hashlib.sha256(template.encode()).hexdigest()}",
    ]
    files = {file for pattern in _TOKENIZER_FILES for file in model.glob(pattern)}
    for file in sorted(files):
        if file.is_file():
            parts.append(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}")
    total.update("\n".join(parts).encode())
    return total.hexdigest()
