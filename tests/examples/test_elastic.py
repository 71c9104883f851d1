"""The example scripts run on a fleet as they stand, as they do under torchrun."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_rig import Rig

pytestmark = pytest.mark.slow
FOLDER = Path(__file__).resolve().parents[2] / "examples" / "elastic"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "rig")
    rig.root.mkdir()
    rig.coordinator()
    rig.worker("a", writable=tmp_path / "shared")
    (tmp_path / "shared").mkdir()
    yield rig
    rig.close()


def run(rig: Rig, output: Path, *words: str) -> str:
    command = [sys.executable, "-m", "llamaforge", "run", "--fleet", str(rig.fleet_file)]
    command += ["--nproc-per-node", "2", "--folder", str(FOLDER), "--output-dir", str(output), "--"]
    done = subprocess.run(
        [*command, *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_ddp_trains_and_leaves_its_weights(rig: Rig, tmp_path: Path) -> None:
    await rig.waiting("a")
    said = run(rig, tmp_path / "out", "ddp.py", "--steps", "20")
    assert "a/0| step 20: loss" in said
    assert (tmp_path / "out" / "model.pt").stat().st_size > 0


async def test_elastic_goes_on_from_its_snapshot(rig: Rig, tmp_path: Path) -> None:
    await rig.waiting("a")
    snapshot = tmp_path / "shared" / "snapshot.pt"
    said = run(rig, tmp_path / "out", "elastic.py", str(snapshot), "--fail-at", "7")
    assert "attempt 0 of rank 1 begins after step 0" in said
    assert "this rank fails, as it was asked to" in said
    assert any(f"attempt 1 of rank 1 begins after step {step}" in said for step in (5, 6, 7))
    assert "done: step 10" in said
