"""Numbers as people read them: durations, bytes, shares, rates."""

from __future__ import annotations

from collections.abc import Mapping


def duration(seconds: float) -> str:
    """`42 s`, `3:05`, `2:03:05`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: float) -> str:
    """Bytes in decimal units: `16 MB`, `1.2 GB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:.1f} {unit}" if count < 10 and unit != "B" else f"{count:.0f} {unit}"


def rate(tokens_per_second: float) -> str:
    """`1,234 tok/s`."""
    return f"{tokens_per_second:,.0f} tok/s"


def shares(parts: Mapping[str, float]) -> str:
    """`node-a 60 %, node-b 40 %`."""
    return ", ".join(f"{node} {part:.0%}".replace("%", " %") for node, part in parts.items())


def count(number: int, noun: str) -> str:
    """`1 step`, `2 steps`, `1,000 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def ago(seconds: float) -> str:
    """A time span in its largest unit, such as `5 min`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def first_line(text: str) -> str:
    """The first line of a text; empty for an empty one."""
    return text.split("\n", 1)[0]
