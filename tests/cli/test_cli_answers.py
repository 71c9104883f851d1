"""Answers before and after: side by side on a wide terminal, in turn elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from llamaforge.cli import answers
from llamaforge.cli.demo import SAMPLES, next_folder, telling

SAID = {"prompt": "Sort: [b] a", "before": "umm [red]", "after": "a\nb", "expected": "a b"}


def shown(*, terminal: bool, width: int) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width)
    answers.show(console, SAID)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_side_by_side() -> None:
    text = shown(terminal=True, width=100)
    line = next(line for line in text.splitlines() if "umm" in line)
    assert "umm [red]" in line
    assert "a" in line.split("umm [red]")[1], "before and after stand on one line"
    assert "Sort: [b] a" in text
    assert "expected: a b" in text


@pytest.mark.parametrize(("terminal", "width"), [(False, 200), (True, 60)])
def test_in_turn(terminal: bool, width: int) -> None:
    lines = shown(terminal=terminal, width=width).splitlines()
    assert lines[0] == "prompt:   Sort: [b] a"
    assert lines[1] == "before:   umm [red]"
    assert lines[2:4] == ["after:    a", "          b"]


def test_the_demo_shows_what_training_put_right() -> None:
    rows = [
        {"prompt": str(n), "exact_before": n % 2 == 0, "exact_after": n % 3 == 0} for n in range(30)
    ]
    chosen = telling(rows)
    assert len(chosen) == SAMPLES
    assert all(row["exact_after"] and not row["exact_before"] for row in chosen)
    assert telling(rows[:1]) == rows[:1]


def test_each_demo_gets_a_new_folder(tmp_path: object) -> None:
    from pathlib import Path

    runs = Path(str(tmp_path))
    assert next_folder(runs).name == "demo-1"
    next_folder(runs).mkdir()
    assert next_folder(runs).name == "demo-2"
