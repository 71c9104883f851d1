"""Held-out rows: a fraction of the dataset chosen by the seed, or a file of their own.

The choice is the start of a permutation that training does not use otherwise, so it is the same
on every machine and needs no list of rows in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llamaforge.data.scan import ScanReport, canonicalise
from llamaforge.data.store import Rows
from llamaforge.data.writing import CanonicalFile, writing
from llamaforge.errors import DataError, SpecError
from llamaforge.spec.order import Permutation

MOST = 0.5
"""The largest fraction that may be held out."""


@dataclass(frozen=True)
class Split:
    """Training rows and held-out rows, as two canonical files."""

    train: CanonicalFile
    heldout: CanonicalFile
    report: ScanReport | None = None
    """What was found in a held-out file; None when a fraction was split off."""


def parse_heldout(value: str) -> float | Path:
    """What `--heldout` means: a fraction above 0 and at most 0.5, or a file.

    A file that is named like a number is meant when it exists.

    Raises:
        SpecError: a number that is not such a fraction.
    """
    text = value.strip()
    percent = text.endswith("%")
    try:
        fraction = float(text[:-1]) / 100 if percent else float(text)
    except ValueError:
        return Path(value)
    if Path(value).is_file():
        return Path(value)
    if percent or not 0 < fraction <= MOST:
        meant = f"{fraction:g}" if percent and 0 < fraction <= MOST else "0.05"
        raise SpecError(
            f"heldout: {value} is neither a fraction above 0 and at most {MOST} nor a file",
            hint=f"did you mean --heldout {meant}? or name a file with held-out rows",
        )
    return fraction


def split(canonical: Path, *, fraction: float, seed: int, train: Path, heldout: Path) -> Split:
    """Holds out round(rows * fraction) rows, at least 1, and leaves at least 1 to train.

    Both files keep the dataset's order. The same rows, fraction and seed give the same bytes.

    Args:
        canonical: all rows, as `data.scan` wrote them; may be the same path as `train`.
        fraction: share of the rows, above 0 and at most 0.5.
        seed: the job's seed.
        train: where the training rows go.
        heldout: where the held-out rows go.

    Raises:
        SpecError: the fraction is out of range.
        DataError: there is only one row.
    """
    if not 0 < fraction <= MOST:
        raise SpecError(f"heldout: {fraction:g} is not above 0 and at most {MOST}")
    rows = Rows(canonical, keep=False)
    if len(rows) < 2:
        raise DataError(
            "the dataset has 1 usable row: none can be held out",
            hint="add rows, leave out --heldout, or name a file: --heldout FILE",
        )
    held = _choice(len(rows), fraction, seed)
    with writing(train) as kept_rows, writing(heldout) as held_rows:
        for index in range(len(rows)):
            (held_rows if held[index] else kept_rows).append(rows.raw(index))
    return Split(kept_rows.done, held_rows.done)


def from_file(
    scanned: ScanReport,
    train: Path,
    *,
    source: Path,
    out: Path,
    format: str = "auto",
    fields: Mapping[str, str] | None = None,
) -> Split:
    """Takes held-out rows from a file of their own; the training rows stay as they are.

    Args:
        scanned: the report of the training rows.
        train: the canonical training rows.
        source: the person's held-out file; its layout may differ from the dataset's.
        out: where its canonical rows go.
        format: as for `data.scan.canonicalise`.
        fields: as for `data.scan.canonicalise`.

    Raises:
        DataError: the held-out file, or a row of it, can't be used.
    """
    report = canonicalise(source, out=out, format=format, fields=fields)
    return Split(
        CanonicalFile(train, scanned.rows, scanned.size, scanned.sha256),
        CanonicalFile(out, report.rows, report.size, report.sha256),
        report,
    )


def _choice(rows: int, fraction: float, seed: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which rows are held out: bool [rows]."""
    count = min(max(1, round(rows * fraction)), rows - 1)
    order = Permutation(rows, seed=seed, epoch=0)
    held = np.zeros(rows, np.bool_)
    held[[order[position] for position in range(count)]] = True
    return held
