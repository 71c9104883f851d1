"""What of a version decides."""

from __future__ import annotations

import pytest

from llamaforge.spec.versions import decisive, differ


@pytest.mark.parametrize(
    ("what", "one", "other", "answer"),
    [
        ("python", "3.11.2", "3.11.9", False),
        ("Python", "3.11.2", "3.12.2", True),
        ("python", "3.1.0", "3.11.0", True),
        ("torch", "2.13.0+cpu", "2.13.0+cu130", False),
        ("torch", "2.13.0", "2.13.1", True),
        ("llamaforge", "0.1.0", "0.1.0+local", True),
        ("torch", "", "2.13.0", True),
        ("torch", "", "", False),
    ],
)
def test_differ(what: str, one: str, other: str, answer: bool) -> None:
    assert differ(what, one, other) is answer
    assert differ(what, other, one) is answer


def test_decisive_of_nothing_is_nothing() -> None:
    assert decisive("python", "") == decisive("torch", "") == ""
