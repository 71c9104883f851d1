"""`python -m lab`, as a person uses it from two terminals."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.ledger import Ledger

ROOT = Path(__file__).resolve().parents[2]


def say(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture(scope="module")
def name() -> Iterator[str]:
    up = subprocess.Popen(
        [sys.executable, "-m", "lab", "up", "--image", "bare"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert up.stdout is not None
    said = ""
    while "Ctrl-C here" not in said:
        line = up.stdout.readline()
        assert line, up.communicate()[1]
        said += line
    name = said.split()[1]
    assert f"Lab {name} is up" in said
    assert "enter node1" in said
    yield name
    done = say("--lab", name, "down")
    assert done.stdout == f"lab {name} is gone\n"
    assert up.wait(20) == 0
    assert not Ledger(name).path.exists()


def test_status_lists_the_nodes(name: str):
    said = say("status").stdout
    assert f"{name}: owner" in said
    for node in ("coordinator", "node1", "node2"):
        assert f"  {node} " in said
    assert name in [lab["name"] for lab in json.loads(say("status", "--json").stdout)["labs"]]


def test_commands_run_on_the_named_node(name: str):
    assert say("--lab", name, "enter", "node2", "hostname").stdout == "node2\n"
    assert say("--lab", name, "enter", "node2", "sh", "-c", "exit 5").returncode == 5


def test_verbs_act_and_a_node_that_is_rebooted_inside_comes_back(name: str):
    assert say("--lab", name, "power-cut", "node1").stdout == "done\n"
    off = say("--lab", name, "enter", "node1", "true")
    assert (off.returncode, off.stderr) == (
        2,
        "error: node1 is off; run: python -m lab boot node1\n",
    )
    assert say("--lab", name, "boot", "node1").stdout.startswith("done in ")
    boot = ("--lab", name, "enter", "node1", "cat", "/proc/sys/kernel/random/boot_id")
    say("--lab", name, "enter", "node1", "touch", "/run/before")
    say("--lab", name, "enter", "node1", "systemctl", "reboot")
    done = subprocess.CompletedProcess([], 0, "", "")
    for _ in range(50):
        done = say("--lab", name, "enter", "node1", "ls", "/run/before")
        if "'/run/before': No such file" in done.stderr:
            break
    assert "'/run/before': No such file" in done.stderr
    assert say(*boot).returncode == 0


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("reboot", "nowhere"), "there is no node 'nowhere'; there are coordinator, node1, node2"),
        (
            ("throttle", "node1", "much"),
            "'much' is no number of cores; 0.25 is a quarter of one, off lifts it",
        ),
    ],
)
def test_mistakes_end_with_2_and_say_what_there_is(name: str, words, error):
    done = say("--lab", name, *words)
    assert (done.returncode, done.stderr) == (2, f"error: {error}\n")


def test_a_lab_that_is_not_there_is_named():
    done = say("--lab", "lf999", "heal")
    assert done.returncode == 2
    assert "there is no lab 'lf999'; " in done.stderr
