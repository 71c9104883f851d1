"""One reader per kind of file: each gives numbered rows, as mappings from column to value.

JSON lines, CSV and Parquet are streamed in bounded memory; a JSON array is read whole. Nothing is
known here about what the columns mean: that is `data.formats`.
"""

from __future__ import annotations

from llamaforge.data.readers.source import Source, open_source

__all__ = ["Source", "open_source"]
