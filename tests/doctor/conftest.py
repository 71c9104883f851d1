"""A machine without faults for each test to break."""

from __future__ import annotations

from pathlib import Path

import pytest
from doctor_machine import FakeMachine


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    """A made-up machine on which all is well."""
    return FakeMachine(tmp_path)
