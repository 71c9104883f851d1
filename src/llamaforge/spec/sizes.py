"""Amounts of bytes as people write them in settings: `50G`, `512M`, `1.5T`."""

from __future__ import annotations

import re

from llamaforge.errors import SpecError

_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*([KMGT]?)(?:i?B)?", re.ASCII | re.IGNORECASE)


def parse_size(text: str, *, source: str) -> int:
    """The bytes that a text means. K, M, G and T are powers of 1024, as in systemd's settings.

    Args:
        text: such as `50G`, `1.5 TiB` or `4096`.
        source: where it is from, for messages: a flag or variable.

    Raises:
        SpecError: it is no size, or zero.
    """
    found = _SIZE.fullmatch(text.strip())
    number = int(float(found[1]) * (1 << _UNITS[found[2].upper()])) if found else 0
    if not number:
        raise SpecError(f"{source} is {text!r}", hint="give bytes with K, M, G or T, such as 50G")
    return number
