"""Answers of a job's model before and after training, for `llamaforge try` and the demo.

    python -m llamaforge.train.ask --job runs/tiny-lora --max-tokens 64
    python -m llamaforge.train.ask --job runs/tiny-lora --rows heldout.jsonl --limit 50

Without `--rows` it reads one JSON object a line from standard input, `{"prompt": …}`, and answers
each before it reads the next. Everything it says is one JSON object a line: `ready`, then an
`answer` per prompt or row, and at the end of a file a `score` with the exact matches. It runs as
a process of its own because only the engine imports torch.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from llamaforge.errors import DataError, LlamaForgeError, UserError
from llamaforge.spec.job import Job
from llamaforge.train.exact import threads

BATCH = 32
"""Rows answered together."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One prompt as tokens, and what the row says the answer is."""

    text: str
    """For a person; without the chat template."""
    ids: list[int]
    expected: str | None = None


class Model:
    """A job's model: the base it started from and what training made of it, in one process.

    With LoRA both are the same weights, with and without the adapter; after full fine-tuning they
    are two models.

    Args:
        folder: the job's folder.
        job: its resolved job.
        max_tokens: longest answer, in tokens.
        temperature: 0 answers greedily; otherwise samples, with the same noise before and after.

    Raises:
        UserError: the folder holds no trained model, or the base model can't be found.
    """

    def __init__(self, folder: Path, job: Job, *, max_tokens: int, temperature: float) -> None:
        from llamaforge.bundle.models import find_model
        from llamaforge.train.rows.tokenizer import load_tokenizer
        from llamaforge.train.rows.tokens import Encoder

        spec = job.spec
        self.encoder = Encoder(
            load_tokenizer(folder), max_length=spec.max_length, train_on=spec.train_on
        )
        self.ends = self.encoder.end_ids
        self._max_tokens, self._temperature = max_tokens, temperature
        self._seed = spec.seed
        base = self._load(find_model(spec.model, spec.revision).folder, spec.precision)
        if spec.method == "full":
            self._before, self._after = base, self._load(folder / "model", spec.precision)
        else:
            from peft import PeftModel

            self._before = self._after = PeftModel.from_pretrained(base, folder).eval()

    def answers(self, questions: Sequence[Question], *, trained: bool) -> list[str]:
        """Answers questions together, before or after training.

        Questions of unequal length are padded on the left and masked. In bf16 that may turn a
        near tie between two tokens, so an answer can differ from one that was asked for alone.
        """
        import torch

        model = self._after if trained else self._before
        untrained_adapter = not trained and self._after is self._before
        longest = max(len(question.ids) for question in questions)
        pad = self._pad
        rows = [[pad] * (longest - len(q.ids)) + q.ids for q in questions]
        mask = [[0] * (longest - len(q.ids)) + [1] * len(q.ids) for q in questions]
        torch.manual_seed(self._seed)
        with torch.no_grad(), model.disable_adapter() if untrained_adapter else nullcontext():
            output = model.generate(input_ids=torch.tensor(rows), attention_mask=torch.tensor(mask))
        return [self._text(ids) for ids in output[:, longest:].tolist()]

    @property
    def _pad(self) -> int:
        """A token for the masked places; which one makes no difference."""
        return self.ends[0] if self.ends else 0

    def _text(self, ids: list[int]) -> str:
        length = next((at for at, token in enumerate(ids) if token in self.ends), len(ids))
        text: str = self.encoder.tokenizer.decode(ids[:length], skip_special_tokens=True)
        return text.strip()

    def _load(self, folder: Path, precision: str) -> Any:
        """The weights of a folder, for answering: any attention that transformers prefers."""
        from transformers import AutoModelForCausalLM, GenerationConfig
        from transformers.utils import logging

        from llamaforge.train.model import DTYPES

        logging.disable_progress_bar()
        logging.set_verbosity_error()
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=DTYPES[precision],  # type: ignore[index]
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        ).eval()
        sampling = {"do_sample": True, "temperature": self._temperature}
        model.generation_config = GenerationConfig(
            max_new_tokens=self._max_tokens,
            eos_token_id=self.ends or None,
            pad_token_id=self._pad,
            **(sampling if self._temperature > 0 else {"do_sample": False}),
        )
        return model


def read_job(folder: Path) -> Job:
    """The resolved job of a job's folder.

    Raises:
        UserError: the folder has no readable job.yaml.
    """
    try:
        return msgspec.yaml.decode((folder / "job.yaml").read_bytes(), type=Job)
    except (OSError, msgspec.MsgspecError) as error:
        raise UserError(f"{folder} is not a job's folder: job.yaml: {error}") from None


def ask_rows(model: Model, job: Job, file: Path, limit: int | None) -> Iterator[dict[str, Any]]:
    """Answers the rows of a file and counts exact matches.

    Args:
        model: what answers.
        job: says how the rows are laid out, as the training rows were.
        file: any dataset file.
        limit: only so many rows, from the file's start.

    Yields:
        An `answer` per row in the file's order, then the `score`.

    Raises:
        DataError: the file can't be read, or no row has an answer to compare with.
    """
    questions = _questions(model, job, file)[:limit]
    if not questions:
        raise DataError(f"no row of {file} has a prompt and an answer")
    exact_before = exact_after = 0
    for begin in range(0, len(questions), BATCH):
        for said in _answered(model, questions[begin : begin + BATCH]):
            exact_before += said["exact_before"]
            exact_after += said["exact_after"]
            yield {**said, "of": len(questions)}
    yield {
        "type": "score",
        "rows": len(questions),
        "exact_before": exact_before,
        "exact_after": exact_after,
    }


def ask_prompts(model: Model, lines: Iterable[str], *, plain: bool) -> Iterator[dict[str, Any]]:
    """Answers `{"prompt": …}` lines one by one.

    Args:
        model: what answers.
        lines: JSON.
        plain: prompts are texts to go on with, not a user's turns.

    Raises:
        UserError: a line is something else.
    """
    from llamaforge.data.rows import Turn

    for line in lines:
        try:
            prompt = msgspec.json.decode(line, type=dict[str, str])["prompt"]
        except (msgspec.MsgspecError, KeyError):
            raise UserError(f'{line.strip()!r} is not {{"prompt": …}}') from None
        turns = [Turn(role="user", content=prompt)]
        ids = model.encoder.plain_prompt(prompt) if plain else model.encoder.prompt(turns)
        yield from _answered(model, [Question(text=prompt, ids=ids.tolist())])


def _answered(model: Model, questions: Sequence[Question]) -> Iterator[dict[str, Any]]:
    before = model.answers(questions, trained=False)
    after = model.answers(questions, trained=True)
    for question, old, new in zip(questions, before, after, strict=True):
        said: dict[str, Any] = {
            "type": "answer",
            "prompt": question.text,
            "before": old,
            "after": new,
        }
        if question.expected is not None:
            wanted = question.expected.strip()
            said |= {
                "expected": wanted,
                "exact_before": old == wanted,
                "exact_after": new == wanted,
            }
        yield said


def _questions(model: Model, job: Job, file: Path) -> list[Question]:
    """The rows of a file that have a prompt and an answer."""
    from llamaforge.data.rows import Chat, Completion, decode
    from llamaforge.data.scan import canonicalise

    with tempfile.TemporaryDirectory(prefix="llamaforge-ask-") as folder:
        out = Path(folder) / "rows.jsonl"
        canonicalise(file, out=out, format=job.spec.format, fields=job.spec.fields)
        rows = [decode(line) for line in out.read_bytes().splitlines()]
    questions = []
    for row in rows:
        if isinstance(row, Chat) and row.turns[-1].role == "assistant":
            *asked, answer = row.turns
            ids = model.encoder.prompt(asked)
            text, expected = asked[-1].content if asked else "", answer.content
        elif isinstance(row, Completion):
            ids = model.encoder.plain_prompt(row.prompt)
            text, expected = row.prompt, row.completion
        else:
            continue  # plain text asks nothing
        questions.append(Question(text=text, ids=ids.tolist(), expected=expected))
    return questions


def _trained_plain(job: Job) -> bool:
    """Whether the job's rows had no chat template around them, as far as it says so."""
    return job.spec.format in ("prompt-completion", "text")


def main() -> int:
    """Answers what the command line names; errors are JSON lines too."""
    parser = argparse.ArgumentParser(prog="llamaforge.train.ask")
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    threads.sanitise_environment()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        job = read_job(options.job)
        model = Model(
            options.job, job, max_tokens=options.max_tokens, temperature=options.temperature
        )
        _say({"type": "ready", "model": job.spec.model})
        said = (
            ask_rows(model, job, options.rows, options.limit)
            if options.rows
            else ask_prompts(model, sys.stdin, plain=options.plain or _trained_plain(job))
        )
        for line in said:
            _say(line)
    except LlamaForgeError as error:
        _say(
            {
                "type": "error",
                "error": type(error).__name__,
                "message": error.message,
                "hint": error.hint,
                "exit_code": error.exit_code,
            }
        )
        return error.exit_code
    return 0


def _say(line: dict[str, Any]) -> None:
    print(msgspec.json.encode(line).decode(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
