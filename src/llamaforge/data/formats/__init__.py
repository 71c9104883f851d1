"""The layouts that people's rows come in, one file per layout, and how they are told apart."""

from __future__ import annotations

from llamaforge.data.formats.detect import FORMATS, detect, named
from llamaforge.data.formats.layout import Empty, Format
from llamaforge.data.formats.record import Record

__all__ = ["FORMATS", "Empty", "Format", "Record", "detect", "named"]
