"""Versions that differ are named, with both nodes."""

from __future__ import annotations

from llamaforge.coordinator.leading.versions import differences

OLD = {"torch": "2.4.0", "python": "3.11.2", "llamaforge": "0.1.0"}
NEW = {**OLD, "torch": "2.5.1"}


def test_equal_nodes_are_not_worth_a_word() -> None:
    assert differences({"a": OLD, "b": OLD}, {"a": OLD}) == []
    assert differences({}, {}) == []


def test_two_nodes_of_one_generation() -> None:
    assert differences({"a": OLD, "b": NEW}, {}) == ["a has torch 2.4.0, b has 2.5.1"]


def test_a_node_that_came_back_with_another_torch() -> None:
    """All nodes are alike again, but not like those that computed the first steps."""
    said = differences({"a": NEW, "b": NEW}, {"a": OLD, "b": OLD})
    assert said == [
        "a had torch 2.4.0 before, it has 2.5.1 now",
        "b had torch 2.4.0 before, it has 2.5.1 now",
    ]


def test_a_version_that_is_not_told() -> None:
    assert differences({"a": OLD, "b": {**OLD, "torch": ""}}, {}) == ["a has torch 2.4.0, b has ?"]
