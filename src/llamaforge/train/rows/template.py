"""The chat template: the model's own, a person's, or the documented default, and how it renders.

Templates are rendered by transformers in its sandbox. One thing is changed: a template that asks
for today's date (Llama 3.2's does) gets a fixed one, since a job that runs over midnight, or is
resumed next week, must train the same tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Literal

import jinja2

from llamaforge.data.rows import Turn
from llamaforge.errors import DataError, SpecError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT = """\
{{- bos_token if bos_token is defined and bos_token -}}
{%- for message in messages -%}
  {%- if message['role'] == 'system' -%}
    {{- message['content'] + '\\n\\n' -}}
  {%- elif message['role'] == 'user' -%}
    {{- '### Instruction:\\n' + message['content'] + '\\n\\n' -}}
  {%- else -%}
    {{- '### Response:\\n' + message['content'] -}}
    {{- eos_token if eos_token is defined and eos_token -}}{{- '\\n\\n' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '### Response:\\n' -}}{%- endif -%}
"""
"""Used where the model has none: Alpaca's blocks, the end token after every answer."""

TODAY = date(2024, 7, 26)
"""The date that templates are told; the one that Llama's own templates fall back to."""

_CLOCK = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")


@dataclass(frozen=True)
class Template:
    """A chat template with the tokenizer whose special tokens it writes."""

    tokenizer: PreTrainedTokenizerBase
    source: str
    """Jinja, with the date fixed."""
    origin: Literal["option", "model", "default"]
    """Who chose it: the job's `chat_template`, the model, or nobody."""

    def render(self, turns: Sequence[Turn], *, ask: bool = False, line: int | None = None) -> str:
        """The conversation as text, with special tokens written out.

        Args:
            turns: at least one.
            ask: end with whatever makes the model answer (`add_generation_prompt`).
            line: where the row came from, for messages.

        Raises:
            DataError: the template refuses the conversation: a system role, two turns of the same
                role in a row, and so on. Holds the template's own words.
            SpecError: the template itself is not valid Jinja.
        """
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        try:
            text = self.tokenizer.apply_chat_template(
                messages,
                chat_template=self.source,
                tokenize=False,
                add_generation_prompt=ask,
            )
        except jinja2.TemplateSyntaxError as error:
            raise SpecError(
                f"the chat template ({self.origin}) is not valid: line {error.lineno}: {error}",
                hint="give a correct one with --chat-template FILE",
            ) from error
        except (jinja2.TemplateError, TypeError, ValueError, LookupError) as error:
            raise self._refusal(turns, line, error) from error
        return str(text)

    def _refusal(self, turns: Sequence[Turn], line: int | None, error: Exception) -> DataError:
        row = f"row {line} of the dataset" if line is not None else "the prompt"
        roles = ", ".join(turn.role for turn in turns[:8]) + (", …" if len(turns) > 8 else "")
        return DataError(
            f"{row} ({roles}): the chat template ({self.origin}) refuses it: {error}",
            hint="change such rows, or give another template with --chat-template FILE",
        )


def choose(tokenizer: PreTrainedTokenizerBase, override: str | None) -> Template:
    """The template of a job: a person's, else the model's, else `DEFAULT`."""
    if override is not None:
        return Template(tokenizer, _pinned(override), "option")
    own = tokenizer.chat_template
    if isinstance(own, dict):  # several, by purpose
        own = own.get("default")
    if own:
        return Template(tokenizer, _pinned(own), "model")
    return Template(tokenizer, DEFAULT, "default")


def _pinned(source: str) -> str:
    """The template with literal calls of the clock replaced by what they say on `TODAY`."""
    return _CLOCK.sub(lambda call: json.dumps(TODAY.strftime(call[2])), source)
