"""A file's lines as text, one at a time, with every wrong byte named.

Opening a file in text mode would decode in blocks and could not say in which line a byte is wrong.
A byte order mark is skipped; `\\r\\n` is left for the caller's parser, which takes it as space.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from llamaforge.errors import DataError

LONGEST_ROW = 64 * 2**20
"""Bytes. A longer line is almost always a file that is not made of lines; it is refused before it
fills the memory."""

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (1-based line number, line with its line ending).

    Raises:
        DataError: a line is not UTF-8 (names file, line and byte) or longer than `LONGEST_ROW`.
    """
    with path.open("rb") as file:
        number = 1
        while raw := file.readline(LONGEST_ROW + 1):
            if len(raw) > LONGEST_ROW:
                raise DataError(
                    f"{path}:{number}: the line is longer than {LONGEST_ROW >> 20} MiB",
                    hint="JSON lines need one row per line; name a JSON array FILE.json",
                )
            yield number, decode_utf8(raw, path, number)
            number += 1


def decode_utf8(raw: bytes, path: Path, first_line: int = 1) -> str:
    """Decodes bytes that start at the beginning of line `first_line` of `path`.

    Raises:
        DataError: names file, line, the 1-based byte in that line, and its value.
    """
    start = len(codecs.BOM_UTF8) if first_line == 1 and raw.startswith(codecs.BOM_UTF8) else 0
    try:
        return raw[start:].decode("utf-8")
    except UnicodeDecodeError as error:
        at = start + error.start
        line = first_line + raw.count(b"\n", 0, at)
        byte = at - (raw.rfind(b"\n", 0, at) + 1) + 1
        encoding = "UTF-16" if raw.startswith(_UTF16) else "WINDOWS-1252"
        raise DataError(
            f"{path}:{line}: byte {byte} (0x{raw[at]:02x}) is not UTF-8",
            hint=f"if it is {encoding}: iconv -f {encoding} -t UTF-8 {path} > utf8-{path.name}",
        ) from error
