"""The kernel's counts of kills, in both versions' words."""

from __future__ import annotations

import pytest

from llamaforge.spec.oom import kills


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("low 0\nhigh 0\nmax 7\noom 2\noom_kill 2\noom_group_kill 0\n", 2),
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 11\n", 11),
        ("oom_kill_disable 0\nunder_oom 0\n", None),
        ("", None),
    ],
)
def test_kills(text: str, count: int | None) -> None:
    assert kills(text) == count
