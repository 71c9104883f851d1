"""What a job leaves behind is ended; tried in a process of its own, which adopts."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import os, subprocess, sys, time
from llamaforge.worker import orphans

orphans.adopt()
rank = (
    "import os, time\\n"
    "if os.fork() == 0:\\n"
    "    os.setsid()\\n"
    "    if os.fork() == 0:\\n"
    "        print(os.getpid(), flush=True)\\n"
    "    else:\\n"
    "        print(os.getpid(), flush=True)\\n"
    "    time.sleep(600)\\n"
    "os._exit(0)\\n"
)
read, write = os.pipe()
subprocess.run([sys.executable, "-c", rank], stdout=write, check=True)
os.close(write)
with os.fdopen(read) as lines:
    pids = sorted(int(lines.readline()) for _ in range(2))
    found = orphans.Orphans()
    with orphans.own_child():
        assert found.end() == 0    # one of them may be the worker's own
    first = found.end()
    while found.end():
        time.sleep(0.01)
    assert lines.read() == ""      # nobody holds the pipe any more
print(first > 0, [os.path.exists(f"/proc/{pid}") for pid in pids], orphans.children())
"""


def test_a_daemon_and_its_child_are_ended_and_reaped() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True [False, False] []"]
