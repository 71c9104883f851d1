"""Names of nodes travel as numbers and come back as names."""

from __future__ import annotations

from llamaforge.train import roster
from llamaforge.train.group import Group


def test_names_come_back() -> None:
    assert roster.nodes(Group.alone(), "Küche-1") == ["Küche-1"]


def test_a_long_name_is_cut() -> None:
    assert roster.nodes(Group.alone(), "n" * 300) == ["n" * 128]
