"""What Tab offers, asked the way a shell asks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.fake_fleet import FakeFleet, a_job, a_node
from llamaforge.cli.main import run
from llamaforge.spec.states import JobState

DONE = JobState.DONE


def offered(line: str) -> list[str]:
    words = line.split(" ")
    asked = {
        "_LLAMAFORGE_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "llamaforge"],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=True,
    )
    return [pair.partition(",")[2] for pair in done.stdout.split()]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("llamaforge tr", ["train", "try"]),
        ("llamaforge train --method ", ["lora", "full"]),
        ("llamaforge train --output", ["--output-dir"]),
        ("llamaforge train --model t", ["tiny"]),
        ("llamaforge completion ", ["bash", "zsh", "fish"]),
    ],
)
def test_tab(line: str, expected: list[str]) -> None:
    assert offered(line) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_valid(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    if shell == "bash" and not shutil.which("bash"):
        pytest.skip("no bash here")
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "_LLAMAFORGE_COMPLETE" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_tab_offers_jobs_and_nodes_of_the_fleet(fleet: FakeFleet) -> None:
    fleet.jobs = {j.id: j for j in (a_job("tiny-1"), a_job("big-1"), a_job("tiny-0", DONE))}
    fleet.nodes = [a_node("box1"), a_node("box2"), a_node("other")]
    given = f"--fleet {fleet.file} "
    assert offered(f"llamaforge logs {given}tiny") == ["tiny-0", "tiny-1"]  # newest first
    assert offered(f"llamaforge cancel {given}tiny") == ["tiny-1"]
    assert offered(f"llamaforge drain {given}box") == ["box1", "box2"]
    assert offered(f"llamaforge nodes {given}remove o") == ["other"]
    assert offered(f"llamaforge events {given}--node b") == ["box1", "box2"]


def test_tab_is_silent_and_quick_without_a_fleet(tmp_path: Path) -> None:
    begin = time.monotonic()
    assert offered(f"llamaforge logs --fleet {tmp_path}/none.json x") == []
    assert time.monotonic() - begin < 10


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "csh"]) == 2
    assert "csh" in capsys.readouterr().err
