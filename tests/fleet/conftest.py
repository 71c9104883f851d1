"""Fleets of real processes: a rig that is empty, and one with a coordinator and two workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_rig import Rig


@pytest.fixture
def empty_rig(tmp_path: Path) -> Iterator[Rig]:
    """Nothing runs yet; what a test starts ends with it."""
    rig = Rig(tmp_path)
    try:
        yield rig
    finally:
        rig.close()


@pytest.fixture
def rig(empty_rig: Rig) -> Rig:
    """A coordinator and two workers, which may still be starting."""
    empty_rig.coordinator()
    empty_rig.worker("worker-1")
    empty_rig.worker("worker-2")
    return empty_rig
