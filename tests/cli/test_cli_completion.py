"""What Tab offers, asked the way a shell asks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from llamaforge.cli.main import run


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


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "csh"]) == 2
    assert "csh" in capsys.readouterr().err
