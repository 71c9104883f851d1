"""A job's rows, made canonical once and kept: the same file and settings are read only once.

They stand under `CACHE/rows/KEY/` as `train.jsonl`, `heldout.jsonl` and, written last,
`report.json`. The key is a digest of the person's files and of every setting that changes a row.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import msgspec

from llamaforge.bundle.store import BlobStore
from llamaforge.data import heldout
from llamaforge.data.readers import open_source
from llamaforge.data.scan import ScanReport, canonicalise
from llamaforge.data.writing import CanonicalFile
from llamaforge.errors import DataError
from llamaforge.spec.job import JobSpec

_VERSION = 1
"""Counts up when the same file would give other rows."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One file of canonical rows."""

    rows: int
    size: int
    """Bytes."""
    sha256: str


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """A job's canonical rows."""

    scan: ScanReport
    """What was found in the dataset, before rows were held out."""
    train: Part
    heldout: Part | None = None
    heldout_scan: ScanReport | None = None
    """What was found in a held-out file of its own."""


def prepare(spec: JobSpec, store: BlobStore, cache: Path) -> tuple[Dataset, Path]:
    """Makes a job's rows canonical, unless they already are.

    Args:
        spec: names the dataset, its layout, and what is held out.
        store: remembers the digests of files that have not changed.
        cache: the folder to keep the rows in.

    Returns:
        The dataset, and the folder with `train.jsonl` and, where rows are held out,
        `heldout.jsonl`.

    Raises:
        DataError: a file, or a row of it, can't be used; names file and line.
        SpecError: format, fields or the held-out fraction are not usable.
    """
    held = heldout.parse_heldout(spec.heldout) if spec.heldout is not None else None
    folder = cache / "rows" / _key(spec, held, store)
    known = _known(folder)
    if known is not None:
        return known, folder
    folder.mkdir(parents=True, exist_ok=True)
    dataset = _make(spec, held, folder)
    handle, aside = tempfile.mkstemp(prefix=".report.", dir=folder)
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(dataset))
    Path(aside).replace(folder / "report.json")
    return dataset, folder


def _make(spec: JobSpec, held: float | Path | None, folder: Path) -> Dataset:
    train, out = folder / "train.jsonl", folder / "heldout.jsonl"
    scan = canonicalise(Path(spec.dataset), out=train, format=spec.format, fields=spec.fields)
    if held is None:
        return Dataset(scan=scan, train=Part(rows=scan.rows, size=scan.size, sha256=scan.sha256))
    if isinstance(held, Path):
        split = heldout.from_file(
            scan, train, source=held, out=out, format=spec.format, fields=spec.fields
        )
    else:
        split = heldout.split(train, fraction=held, seed=spec.seed, train=train, heldout=out)
    return Dataset(
        scan=scan,
        train=_part(split.train),
        heldout=_part(split.heldout),
        heldout_scan=split.report,
    )


def _part(file: CanonicalFile) -> Part:
    return Part(rows=file.rows, size=file.size, sha256=file.sha256)


def _key(spec: JobSpec, held: float | Path | None, store: BlobStore) -> str:
    """What decides the rows; names are in it because reports name them."""
    seed = spec.seed if isinstance(held, float) else None
    facts = [
        _VERSION,
        _identity(Path(spec.dataset), store),
        spec.format,
        sorted(spec.fields.items()),
        _identity(held, store) if isinstance(held, Path) else [held, seed],
    ]
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()[:32]


def _identity(source: Path, store: BlobStore) -> list[str]:
    open_source(source)  # refuses what is no dataset, with its name
    try:
        return [str(source), store.add_file(source)[0]]
    except OSError as error:
        raise DataError(f"{source}: can't be read: {error.strerror}") from error


def _known(folder: Path) -> Dataset | None:
    """The dataset that stands in `folder`, if it is whole."""
    try:
        found = msgspec.json.decode((folder / "report.json").read_bytes(), type=Dataset)
        parts = {"train.jsonl": found.train, "heldout.jsonl": found.heldout}
        sizes = {name: (folder / name).stat().st_size for name, part in parts.items() if part}
    except (OSError, msgspec.MsgspecError):
        return None  # not made yet, or by an older version: it is made again
    same = all(part is None or sizes[name] == part.size for name, part in parts.items())
    return found if same else None
