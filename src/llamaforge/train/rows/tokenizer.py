"""Loads a bundle's tokenizer, and the encoder that a job asks for. Never from the network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llamaforge.errors import ModelError
from llamaforge.spec.job import JobSpec
from llamaforge.train.rows.tokens import Encoder, cache_key

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATE = Path("template") / "chat_template.jinja"
"""Where a bundle holds the chat template of the job, if it has one."""


def load_tokenizer(model: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a model's folder. Code that a model brings along is never run.

    Raises:
        ModelError: there is none, or transformers can't read it.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            str(model), local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"the model's tokenizer can't be loaded: {first}",
            hint="the model's folder needs tokenizer.json and tokenizer_config.json",
        ) from error


def load_encoder(bundle: Path, spec: JobSpec) -> Encoder:
    """The encoder of a job, from its bundle's `model/` and `template/`.

    Raises:
        ModelError: the tokenizer is missing, unreadable or a slow one.
    """
    return Encoder(
        load_tokenizer(bundle / "model"),
        max_length=spec.max_length,
        train_on=spec.train_on,
        template=job_template(bundle),
    )


def job_template(bundle: Path) -> str | None:
    """The chat template that the job brings along, None where the model's is used."""
    path = bundle / TEMPLATE
    return path.read_text(encoding="utf-8") if path.is_file() else None


def job_cache_key(bundle: Path, spec: JobSpec, data_digest: str) -> str:
    """The name of the cache that holds a job's tokens; see `tokens.cache_key`."""
    return cache_key(
        data_digest=data_digest,
        model=bundle / "model",
        template=job_template(bundle),
        max_length=spec.max_length,
        train_on=spec.train_on,
    )
