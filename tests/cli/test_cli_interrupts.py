"""What Ctrl-C and a lost terminal do to a job that is watched: real terminals, a made-up fleet."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.fake_fleet import FakeFleet, a_job
from cli.terminal import Terminal
from cli.updates import ended, step, stream
from llamaforge.spec.states import JobState

PATIENCE = 60.0
ASKED = "or go on? [d/c/G]"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    rows = ({"instruction": f"Say {n}.", "output": f"{n}"} for n in range(8))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def watching(verb: str, fleet: FakeFleet, here: Path) -> Terminal:
    """`train` of a new job, or `attach` to one that runs; shown until its first steps."""
    environment = {"XDG_CACHE_HOME": str(here / "cache"), "XDG_STATE_HOME": str(here / "state")}
    fleet.streams["job-1"] = stream("/x")[:-2]
    args = {
        "train": ("train", "--model", "tiny", "--dataset", "rows.jsonl", "--name", "job-1"),
        "attach": ("attach", "job-1"),
    }
    if verb == "attach":
        fleet.jobs["job-1"] = a_job("job-1")
    terminal = Terminal(*args[verb], "--fleet", str(fleet.file), cwd=here, environment=environment)
    until(lambda: any("stream?" in path for _, path, _ in fleet.asked), terminal)
    until(lambda: "step 4" in terminal.text, terminal)
    return terminal


def until(ready: Callable[[], bool], terminal: Terminal) -> None:
    end = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < end, terminal.text
        assert terminal.process.poll() is None, terminal.text
        time.sleep(0.02)


def stops(fleet: FakeFleet) -> list[bool]:
    return [body["now"] for _, path, body in fleet.asked if path.endswith("/stop")]


def test_detach(fleet: FakeFleet, here: Path) -> None:
    with watching("train", fleet, here) as terminal:
        terminal.type("\x03")
        terminal.wait_for(ASKED)
        terminal.type("what?\r")
        terminal.wait_for(ASKED, times=2)
        terminal.type("d\r")
        assert terminal.code() == 0
        terminal.wait_for("job job-1 goes on without this terminal")
        terminal.wait_for("llamaforge logs -f job-1")
    assert stops(fleet) == []


def test_go_on_then_cancel_then_at_once(fleet: FakeFleet, here: Path) -> None:
    with watching("train", fleet, here) as terminal:
        terminal.type("\x03")
        terminal.wait_for(ASKED)
        fleet.streams["job-1"] += [step(5), step(6)]
        terminal.type("\r")
        until(lambda: "step 6" in terminal.text, terminal)
        terminal.type("\x03")
        terminal.wait_for(ASKED, times=2)
        terminal.type("c\r")
        until(lambda: stops(fleet) == [False], terminal)
        terminal.wait_for("saving a checkpoint")
        terminal.type("\x03")
        until(lambda: stops(fleet) == [False, True], terminal)
        fleet.streams["job-1"].append(ended("/x", JobState.STOPPED))
        assert terminal.code() == 130


def test_a_second_ctrl_c_while_asked_cancels(fleet: FakeFleet, here: Path) -> None:
    with watching("train", fleet, here) as terminal:
        terminal.type("\x03")
        terminal.wait_for(ASKED)
        terminal.type("\x03")
        until(lambda: stops(fleet) == [False], terminal)
        fleet.streams["job-1"].append(ended("/x", JobState.STOPPED))
        assert terminal.code() == 130
        terminal.wait_for("continue with: llamaforge train")


@pytest.mark.parametrize("verb", ["train", "attach"])
def test_a_lost_terminal_detaches(fleet: FakeFleet, here: Path, verb: str) -> None:
    with watching(verb, fleet, here) as terminal:
        terminal.hang_up()
        assert terminal.code() == 0
    assert stops(fleet) == []


def test_sigterm_cancels(fleet: FakeFleet, here: Path) -> None:
    with watching("train", fleet, here) as terminal:
        os.kill(terminal.process.pid, signal.SIGTERM)
        until(lambda: stops(fleet) == [False], terminal)
        fleet.streams["job-1"].append(ended("/x", JobState.STOPPED))
        assert terminal.code() == 130


def test_ctrl_c_leaves_a_job_alone_to_which_one_is_attached(fleet: FakeFleet, here: Path) -> None:
    with watching("attach", fleet, here) as terminal:
        terminal.type("\x03")
        assert terminal.code() == 0
        terminal.wait_for("job job-1 goes on without this terminal")
    assert stops(fleet) == []
