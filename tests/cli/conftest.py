"""A made-up fleet for verbs that ask one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.fake_fleet import FakeFleet
from llamaforge.wire import away


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFleet]:
    monkeypatch.setattr(away, "REDIAL_SECONDS", 0.02)
    root = tmp_path / "fleet"
    root.mkdir()
    fake = FakeFleet(root)
    yield fake
    fake.close()
