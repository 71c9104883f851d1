"""Labs for tests. Without root, nspawn or overlays every test here is skipped, saying why."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import Lab, Node
from lab.requirements import missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything below this folder, and skip it where the box can't have a lab."""
    here = __file__.rpartition("/")[0] + "/"
    lacking = missing()
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.lab)
            if lacking:
                item.add_marker(pytest.mark.skip(reason="no lab here: " + "; ".join(lacking)))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One lab for all tests of a file."""
    with Lab.open() as lab:
        yield lab


@pytest.fixture
def installed_node(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Node]:
    """A fresh booted node with the product in /opt, off again after the test."""
    node = lab.add(f"node{len(lab.nodes) + 1}", image="installed")
    node.boot()
    yield node
    node.power_cut()
