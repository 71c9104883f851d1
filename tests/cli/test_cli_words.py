"""Numbers as people read them."""

from __future__ import annotations

import pytest

from llamaforge.cli import words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (-3, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (185, "3:05"), (7385, "2:03:05")],
)
def test_duration(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (16e6, "16 MB"), (2e15, "2000 TB")],
)
def test_size(count: float, text: str) -> None:
    assert words.size(count) == text


def test_others() -> None:
    assert words.rate(1234.4) == "1,234 tok/s"
    assert words.shares({"a": 0.6, "b": 0.4}) == "a 60 %, b 40 %"
    assert (words.count(1, "step"), words.count(1000, "row")) == ("1 step", "1,000 rows")
