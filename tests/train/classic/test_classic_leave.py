"""Signals: at the next step boundary while training, at once before it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from llamaforge.train.classic.leave import Interrupted, Leave


@pytest.fixture
def leave() -> Iterator[Leave]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    leave = Leave()
    leave.listen()
    yield leave
    for number, handler in before.items():
        signal.signal(number, handler)


def test_while_training_a_signal_waits_for_the_step_boundary(leave: Leave) -> None:
    leave.training = True
    assert leave() is None
    os.kill(os.getpid(), signal.SIGTERM)
    assert leave() == "SIGTERM"


def test_the_first_signal_is_the_reason(leave: Leave) -> None:
    leave.training = True
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    assert leave() == "SIGINT"


def test_before_training_a_signal_ends_the_process(leave: Leave) -> None:
    with pytest.raises(Interrupted, match="SIGINT before training began") as seen:
        signal.raise_signal(signal.SIGINT)
    assert seen.value.exit_code == 130


def test_a_rank_ends_with_its_agent() -> None:
    rank = (
        "import os, time; from llamaforge.train.classic.leave import tie_to_parent;"
        "tie_to_parent();"
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    agent = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import subprocess, sys;"
            f"subprocess.run([sys.executable, '-c', {rank!r}], start_new_session=True)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert agent.stdout is not None
    child = os.pidfd_open(int(agent.stdout.readline()))
    agent.kill()
    agent.wait()
    assert select.select([child], [], [], 10)[0], "the rank outlived its agent"
    os.close(child)
