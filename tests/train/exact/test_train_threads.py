"""Threads: what the job says, also where the environment says something else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llamaforge.train.exact import threads

SCRIPT = """
from llamaforge.train.exact import threads
threads.sanitise_environment() if {sanitise} else None
threads.use(2)
print(threads.team_size(2))
"""


def run(sanitise: bool, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(sanitise=sanitise)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_variables_cannot_change_the_number_of_threads() -> None:
    done = run(True, OMP_THREAD_LIMIT="1", OMP_NUM_THREADS="7", MKL_NUM_THREADS="1")
    assert done.stdout.strip() == "2", done.stderr


def test_a_parallel_region_of_another_size_is_refused() -> None:
    done = run(False, OMP_THREAD_LIMIT="1")
    assert done.returncode != 0
    assert "a parallel region here has 1" in done.stderr


def test_what_is_set_for_ranks_is_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that wait must sleep: spinning ones starve each other on a shared machine."""
    monkeypatch.setattr(os, "environ", {"OMP_WAIT_POLICY": "ACTIVE", "MKL_CBWR": "x", "PATH": "p"})
    assert threads.sanitise_environment() == ["MKL_CBWR", "OMP_WAIT_POLICY"]
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert os.environ["PATH"] == "p"
    assert "MKL_CBWR" not in os.environ
