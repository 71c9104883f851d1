"""Labs for tests. Without root, nspawn or overlays every test here is skipped, saying why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab, Node
from lab.requirements import missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what boots machines, and skip it where the box can't have a lab.

    The tests in parts/ are about the lab's own code and run anywhere.
    """
    here = Path(__file__).parent
    lacking = missing()
    for item in items:
        if here in item.path.parents and here / "parts" not in item.path.parents:
            item.add_marker(pytest.mark.lab)
            if lacking:
                item.add_marker(pytest.mark.skip(reason="no lab here: " + "; ".join(lacking)))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One lab for all tests of a file."""
    with Lab.open() as lab:
        yield lab


@pytest.fixture
def installed_node(lab: Lab) -> Iterator[Node]:
    """A fresh booted node with the product in /opt, off again after the test."""
    node = lab.add(f"node{len(lab.nodes) + 1}", image="installed")
    node.boot()
    yield node
    node.power_cut()
