"""What a job would train, without training: lint, two rows with their trained parts, lengths.

    python -m llamaforge.train.preview --bundle DIR --job job.json [--rows 2]

Prints one JSON object, a `Preview`, on standard output; or a `Trouble`, with exit code 2 when the
person who asked can mend it and 1 otherwise. The command line starts this as a process, because it
must not import tokenizers itself. `data/scan.json` in the bundle (a `ScanReport`), where there is
one, adds dropped rows to the lint.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import traceback
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import msgspec

from llamaforge.data.scan import ScanReport
from llamaforge.data.store import Rows
from llamaforge.errors import LlamaForgeError, UserError
from llamaforge.spec.job import Job
from llamaforge.spec.slices import Order, budget, pack
from llamaforge.train.rows.feed import Feed
from llamaforge.train.rows.lint import LintReport, of_feed
from llamaforge.train.rows.tokenizer import load_encoder
from llamaforge.train.rows.tokens import Encoder, Tokens

STEPS = 3
"""First steps whose slices are shown."""


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a row whose tokens are all trained, or all not."""

    text: str
    trained: bool


class ShownRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row as it will be trained."""

    line: int
    """Where it came from: line or row number of the dataset's file."""
    tokens: int
    truncated: bool
    segments: tuple[Segment, ...]
    """Special tokens are written out."""


class Lengths(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens per row, after truncation."""

    rows: int
    """Rows of an epoch."""
    total: int
    """Tokens of an epoch; an estimate when `estimated`."""
    estimated: bool
    mean: float
    p99: int
    longest: int


class ShownStep(msgspec.Struct, frozen=True, kw_only=True):
    """One of the first steps."""

    step: int
    rows: tuple[int, ...]
    """Row numbers, from 0, in the step's order."""
    slices: tuple[tuple[int, ...], ...]
    """Positions into `rows`, per slice."""


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What a job would train."""

    lint: LintReport
    lint_lines: list[str]
    """The lint for a person; see `LintReport.lines`."""
    rows: list[ShownRow]
    lengths: Lengths
    steps: list[ShownStep]


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no preview."""

    error: str
    hint: str
    user_error: bool


def preview(bundle: Path, job: Job, *, rows: int) -> Preview:
    """Makes the preview of a job whose files stand in `bundle`.

    Raises:
        UserError: the tokenizer can't be loaded, or the chat template refuses a row.
    """
    encoder = load_encoder(bundle, job.spec)
    source = Rows(bundle / "data" / "train.jsonl", keep=False)
    feed = Feed(source, encoder, folder=None)
    found = of_feed(feed, scan=_scan(bundle))
    shown = [_show(encoder, source, feed, index) for index in range(min(rows, len(source)))]
    return Preview(
        lint=found,
        lint_lines=found.lines(),
        rows=shown,
        lengths=_lengths(found),
        steps=[_step(job, feed, step) for step in range(min(STEPS, job.total_steps))],
    )


def segments(encoder: Encoder, tokens: Tokens) -> tuple[Segment, ...]:
    """A row's text, cut where trained and untrained tokens meet.

    Texts are taken from the text of all tokens up to each cut: tokens alone may lack a leading
    space, or hold half of a character.
    """
    parts: list[Segment] = []
    before, taken = "", 0
    for trained, run in groupby(tokens.trained.tolist()):
        taken += len(list(run))
        text = encoder.text(tokens.ids[:taken])
        parts.append(Segment(text=text[len(before) :], trained=trained))
        before = text
    return tuple(parts)


def _show(encoder: Encoder, source: Rows, feed: Feed, index: int) -> ShownRow:
    tokens = feed[index]
    return ShownRow(
        line=source[index].line,
        tokens=len(tokens.ids),
        truncated=tokens.truncated,
        segments=segments(encoder, tokens),
    )


def _lengths(found: LintReport) -> Lengths:
    return Lengths(
        rows=found.rows,
        total=round(found.mean * found.rows),
        estimated=found.sampled,
        mean=found.mean,
        p99=found.p99,
        longest=found.longest,
    )


def _step(job: Job, feed: Feed, step: int) -> ShownStep:
    """A step's rows and slices; rows without a trained token are in no slice."""
    rows = Order(job).step(step).rows
    lengths = [feed[row].weight for row in rows]
    room = budget(lengths, slices=job.spec.slices, most=job.spec.slice_tokens)
    return ShownStep(step=step, rows=rows, slices=tuple(pack(lengths, room)))


def _scan(bundle: Path) -> ScanReport | None:
    path = bundle / "data" / "scan.json"
    return msgspec.json.decode(path.read_bytes(), type=ScanReport) if path.is_file() else None


def _job(path: Path) -> Job:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Job)
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise UserError(f"{path} is not a job: {error}") from error


def _answer(arguments: Sequence[str]) -> tuple[Preview | Trouble, int]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True, help="folder with the job's files")
    parser.add_argument("--job", type=Path, required=True, help="the resolved job, as JSON")
    parser.add_argument("--rows", type=int, default=2, help="rows to show")
    options = parser.parse_args(arguments)
    try:
        return preview(options.bundle, _job(options.job), rows=options.rows), 0
    except LlamaForgeError as error:
        user = isinstance(error, UserError)
        return Trouble(error=error.message, hint=error.hint, user_error=user), error.exit_code
    except Exception as error:  # noqa: BLE001 -- a bug: told in full here, in brief to the caller
        traceback.print_exc()
        return Trouble(error=f"{type(error).__name__}: {error}", hint="", user_error=False), 1


def main(arguments: Sequence[str]) -> int:
    """Prints the preview and returns the exit code. Nothing else reaches standard output."""
    with contextlib.redirect_stdout(sys.stderr):  # libraries talk
        answer, code = _answer(arguments)
    print(msgspec.json.encode(answer).decode())
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
