"""A ledger and what a record needs beside it, in a folder of the test's."""

from __future__ import annotations

from pathlib import Path

from llamaforge.coordinator.ledger import Ledger
from llamaforge.coordinator.record import Keeping


def keeping(root: Path, ledger: Ledger) -> Keeping:
    return Keeping(
        ledger=ledger, streams=root / "streams", folders=root / "jobs", barrier=ledger.settled
    )
