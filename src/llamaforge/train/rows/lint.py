"""What a person should know about their rows before hours of training are spent on them.

All rows are looked at up to a limit; of larger datasets a fixed sample is, and the report says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np

from llamaforge.data.scan import Drop, ScanReport
from llamaforge.spec.order import Permutation
from llamaforge.train.rows.feed import Feed
from llamaforge.train.rows.tokens import Tokens

LIMIT = 2_000
"""Rows that are looked at."""

ENDS_WANTED = 0.99
"""Below this share of rows with a trained end token, a model learns to run on."""

WARNING = "warning: "


class Tokenised(Protocol):
    """Rows as tokens, by number; `feed.Feed` is one."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Tokens: ...


class LintReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen. Shares are between 0 and 1, of the rows that were looked at."""

    rows: int
    """Rows used."""
    checked: int
    """Rows that were looked at: all, or a sample."""
    dropped: tuple[Drop, ...]
    """Rows left out before, by reason; empty when no scan report was at hand."""
    duplicates: int
    tokens: int
    """Tokens of the rows that were looked at, after truncation."""
    trained: float
    """Share of the tokens that the loss counts."""
    masked: float
    """Share of the tokens that it doesn't."""
    truncated: float
    """Share of all tokens that truncation takes away."""
    rows_truncated: int
    rows_untrained: int
    """Rows that are used but have no trained token."""
    rows_ended: int
    """Rows with a trained end token."""
    rows_doubled_start: int
    """Rows that begin with two start tokens."""
    rows_last_turn_only: int
    """Conversations that the chat template rewrites: only their last answer is trained."""
    longest: int
    """Tokens of the longest row, after truncation; likewise `mean` and `p99`."""
    mean: float
    p99: int
    template: str
    """Where the chat template comes from: `option`, `model` or `default`."""
    max_length: int

    @property
    def sampled(self) -> bool:
        """Whether only a part of the rows was looked at."""
        return self.checked < self.rows

    def warnings(self) -> list[str]:
        """What may spoil the training, one sentence each."""
        n = self.checked
        found = [
            (
                self.rows_untrained,
                f"{_of(self.rows_untrained, n)} rows have no trained token: their prompts fill "
                f"max_length ({self.max_length}); raise --max-length",
            ),
            (
                self.rows_truncated,
                f"{_of(self.rows_truncated, n)} rows are cut to {self.max_length} tokens, "
                f"{_percent(self.truncated)} of all tokens; raise --max-length",
            ),
            (
                self.rows_ended < n * ENDS_WANTED,
                f"an end token is trained in {_of(self.rows_ended, n)} rows only: the model may "
                "not learn when to stop",
            ),
            (
                self.rows_doubled_start,
                f"{_of(self.rows_doubled_start, n)} rows begin with two start tokens; "
                "remove the one in the text or in the chat template",
            ),
            (
                self.rows_last_turn_only,
                f"in {_of(self.rows_last_turn_only, n)} rows only the last answer is trained: "
                "the chat template changes what was said (it drops thinking, for example)",
            ),
        ]
        return [text for holds, text in found if holds]

    def lines(self) -> list[str]:
        """The report for a person; warnings come last and begin with `warning: `."""
        looked = f"a sample of {self.checked:,} of them" if self.sampled else "all of them"
        lines = [
            f"{self.rows:,} row{'s' * (self.rows != 1)} used, "
            f"{sum(d.rows for d in self.dropped):,} dropped"
        ]
        lines += [f"dropped {d.rows:,}: {d.reason} ({', '.join(d.first)})" for d in self.dropped]
        if self.duplicates:
            lines.append(f"{self.duplicates:,} rows repeat an earlier one; they are kept")
        lines += [
            f"tokens, from {looked}: {_percent(self.trained)} trained, "
            f"{_percent(self.masked)} masked, {_percent(self.truncated)} cut away",
            f"tokens per row: mean {self.mean:.0f}, 99 % up to {self.p99:,}, "
            f"longest {self.longest:,}",
            f"end token trained in {_of(self.rows_ended, self.checked)} rows",
            f"chat template: {_TEMPLATES[self.template]}",
        ]
        return lines + [WARNING + text for text in self.warnings()]


_TEMPLATES = {
    "option": "the one given with --chat-template",
    "model": "the model's own",
    "default": "the default, ### Instruction: / ### Response: (the model has none)",
}


def of_feed(feed: Feed, *, scan: ScanReport | None = None) -> LintReport:
    """Looks at a job's training rows; see `lint`."""
    encoder = feed.encoder
    return lint(
        feed,
        begin=encoder.begin,
        template=encoder.template.origin,
        max_length=encoder.max_length,
        scan=scan,
    )


def lint(
    rows: Tokenised,
    *,
    begin: int | None,
    template: str,
    max_length: int,
    scan: ScanReport | None = None,
    limit: int = LIMIT,
) -> LintReport:
    """Looks at rows as they will be trained.

    Args:
        rows: the training rows as tokens.
        begin: the tokenizer's start token, if it has one.
        template: where the chat template comes from (`Template.origin`).
        max_length: tokens per row, as asked for.
        scan: what reading the file found.
        limit: rows to look at; of more rows a fixed sample is taken.

    Raises:
        DataError: the chat template refuses one of the rows; names its line.
    """
    looked = [rows[index] for index in _sample(len(rows), limit)]
    lengths = np.array([len(tokens.ids) for tokens in looked])
    total, cut = int(lengths.sum()), sum(tokens.cut for tokens in looked)
    trained = sum(int(tokens.trained.sum()) for tokens in looked) / max(1, total)
    return LintReport(
        rows=len(rows),
        checked=len(looked),
        dropped=scan.dropped if scan else (),
        duplicates=scan.duplicates if scan else 0,
        tokens=total,
        trained=trained,
        masked=1 - trained if total else 0.0,
        truncated=cut / max(1, total + cut),
        rows_truncated=sum(tokens.truncated for tokens in looked),
        rows_untrained=sum(not tokens.trained.any() for tokens in looked),
        rows_ended=sum(tokens.ended for tokens in looked),
        rows_doubled_start=sum(_doubled(tokens, begin) for tokens in looked),
        rows_last_turn_only=sum(tokens.last_turn_only for tokens in looked),
        longest=int(lengths.max()),
        mean=float(lengths.mean()),
        p99=int(np.percentile(lengths, 99, method="higher")),
        template=template,
        max_length=max_length,
    )


def _sample(rows: int, limit: int) -> Sequence[int]:
    """All row numbers, or `limit` of them that are always the same, ascending."""
    if rows <= limit:
        return range(rows)
    order = Permutation(rows, seed=0, epoch=0)
    return sorted(order[position] for position in range(limit))


def _doubled(tokens: Tokens, begin: int | None) -> bool:
    return begin is not None and tokens.ids[:2].tolist() == [begin, begin]


def _of(count: int, whole: int) -> str:
    return f"{count:,} of {whole:,} ({_percent(count / max(1, whole))})"


def _percent(share: float) -> str:
    """A share in per cent; never 0 or 100 when it is not quite."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"
