"""docs/CLI.md says what the code does."""

from __future__ import annotations

from pathlib import Path

from llamaforge.cli.reference import markdown
from llamaforge.cli.verbs import VERBS
from llamaforge.spec.options import options

PAGE = Path(__file__).parents[2] / "docs" / "CLI.md"


def test_the_page_is_up_to_date() -> None:
    again = "python -m llamaforge.cli.reference > docs/CLI.md"
    assert PAGE.read_text(encoding="utf-8") == markdown(), again


def test_every_verb_and_option_is_on_the_page() -> None:
    page = markdown()
    assert all(f"### `llamaforge {verb}`" in page for verb in VERBS)
    assert all(f"`{option.flag}`" in page.replace("[no-]", "") for option in options().values())
