"""Shows answers before and after training: side by side where there is room, else in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

ROOM = 80
"""Columns from which on answers stand side by side."""


def show(console: Console, said: dict[str, Any]) -> None:
    """Prints one `answer` of `llamaforge.train.ask`.

    Args:
        console: where to; decides by its width, and by whether it is a terminal.
        said: prompt, before, after, and for a row of a file what was expected.
    """
    if console.is_terminal and console.width >= ROOM:
        _side_by_side(console, said)
    else:
        _in_turn(console, said)


def _side_by_side(console: Console, said: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(said["prompt"]), title_justify="left", expand=True, show_lines=True)
    table.add_column("before", ratio=1, style="dim")
    table.add_column("after", ratio=1)
    table.add_row(Text(said["before"]), Text(said["after"]))
    if "expected" in said:
        table.caption = Text(f"expected: {said['expected']}")
        table.caption_justify = "left"
    console.print(table)


def _in_turn(console: Console, said: dict[str, Any]) -> None:
    for name in ("prompt", "before", "after", "expected"):
        if name in said:
            text = str(said[name]).replace("\n", "\n" + " " * 10)
            console.print(f"{name + ':':<9} {text}", markup=False, highlight=False, soft_wrap=True)
    console.print()
