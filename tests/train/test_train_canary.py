"""The canary slice: the same bits each time, other bits for other kernels."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from llamaforge.train import canary
from llamaforge.worker.canary import _found


def program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llamaforge.train.canary", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def test_the_same_bits_each_time_and_in_each_process() -> None:
    """Variables that would change the kernels are taken out, as for a rank."""
    here = canary.digest("bf16", 1)
    assert here == canary.digest("bf16", 1)
    assert here != canary.digest("fp32", 1)
    done = program("--precision", "bf16", "--threads", "1", OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"canary": here}
    assert _found(["a warning", done.stdout.strip()]) == here


def test_a_slip_is_refused_without_importing_torch() -> None:
    done = program("--precision", "fp8", "--threads", "1")
    assert done.returncode == 2
    assert "fp8" in done.stderr
