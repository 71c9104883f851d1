"""A rank's name and its environment, both as others see them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
import os, sys
from llamaforge.train import title
title.show("alpaca-3f2a", 1, 4)
title.show("alpaca-3f2b", 1, 4)
print(open("/proc/self/cmdline").read().strip(chr(0)))
print("GREETING=hello" in open("/proc/self/environ").read(), "SPT_NOENV" in os.environ)
"""


def test_ps_shows_job_and_rank_and_the_environment_stays_readable(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, *("--assignment", str(tmp_path / "rank-1.json"))],
        env={"GREETING": "hello", "PATH": "/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "llamaforge: torch rank 1 of 4, job alpaca-3f2b",
        "True False",
    ]
