"""Parquet, a batch of rows at a time. pyarrow is imported only when such a file is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llamaforge.errors import DataError

BATCH_ROWS = 256


def read_parquet(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yields (1-based row number, column name to value); memory is bounded by one row group.

    Raises:
        DataError: the file is damaged, or a text column is not UTF-8.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for row in _rows(batch, path, number):
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: not a readable Parquet file after row {number}: {error}",
            hint="copy or export the file again",
        ) from error


def _rows(batch: Any, path: Path, before: int) -> Iterator[dict[str, object]]:
    """The batch's rows one by one, so that a byte that is not UTF-8 can be pinned to its row."""
    for position in range(batch.num_rows):
        try:
            yield batch.slice(position, 1).to_pylist()[0]
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: row {before + position + 1}: byte {error.start + 1} of a text "
                f"(0x{error.object[error.start]:02x}) is not UTF-8",
                hint="export the file again with UTF-8 text",
            ) from error
