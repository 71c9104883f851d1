"""`llamaforge run`: mistakes, what it sends, and scripts on a real fleet of two workers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.fake_fleet import FakeFleet
from fleet_rig import Rig
from llamaforge.cli.main import run

Output = pytest.CaptureFixture[str]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a script."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text("print('hello')\n")
    (folder / "sub").mkdir()
    (folder / "sub" / "deep.py").write_text("")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--"], "nothing to run"),
        (["--", "missing.py"], "no script missing.py"),
        (["--", "/etc/hostname"], "is not in"),
        (["--", "../outside.py"], "outside.py is not in"),
        (["--", "--nodes", "2"], "--nodes is not a script"),
        (["--", "-m"], "-m needs a module"),
        (["--nodes", "2", "--min-nodes", "3", "--", "train.py"], "--min-nodes 3 is more"),
        (["--nodes", "0", "--", "train.py"], "'--nodes'"),
        (["--nproc-per-node", "0", "--", "train.py"], "--nproc-per-node is '0'"),
        (["--nproc-per-node", "many", "--", "train.py"], "'many'"),
        (["--env", "LR", "--", "train.py"], "is not NAME=VALUE"),
        (["--env", "RANK=1", "--", "train.py"], "its own RANK"),
        (["--env", "TORCHELASTIC_RUN_ID=1", "--", "train.py"], "TORCHELASTIC_RUN_ID"),
        (["--name", "../x", "--", "train.py"], "--name is '../x'"),
        (["--folder", "nowhere", "--", "train.py"], "nowhere is not a folder"),
        (["--folder", "sub", "--", "train.py"], "--folder"),
        (["--max-size", "1", "--", "train.py"], "the biggest: train.py"),
        (["--max-size", "big", "--", "train.py"], "'big'"),
        (["--labels", "a b", "--", "train.py"], "--labels"),
        (["--output-dir", "sub", "--", "train.py"], "holds files already"),
    ],
)
def test_mistakes_are_named_before_anything_starts(
    project: Path, capsys: Output, words: list[str], said: str
) -> None:
    (project.parent / "outside.py").write_text("")
    assert run(["run", *words]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert len(shown.splitlines()) > 1 or "--folder" in shown  # what to do next


def test_an_ignored_script_is_named(project: Path, capsys: Output) -> None:
    (project / ".llamaforgeignore").write_text("train.py\n")
    assert run(["run", "--", "train.py"]) == 2
    assert "does not travel" in capsys.readouterr().err


def test_a_dry_run_lists_and_sends_nothing(project: Path, capsys: Output) -> None:
    (project / ".env").write_text("HF_TOKEN=secret")
    assert run(["run", "--dry-run", "--", "train.py", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "train.py" in out
    assert "sub/deep.py" in out
    assert ".env" not in out
    assert not (project.parent / "cache").exists()
    assert run(["run", "--dry-run", "--json", "--", "sub/deep.py", "x"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["command"] == ["sub/deep.py", "x"]
    assert set(said["files"]) == {"train.py", "sub/deep.py"}


def test_the_submission_says_what_was_asked(
    project: Path, fleet: FakeFleet, capsys: Output
) -> None:
    words = ["--nodes", "4", "--min-nodes", "2", "--nproc-per-node", "auto", "--labels", "gpu,ssd"]
    words += ["--priority", "7", "--max-restarts", "1", "--name", "mine", "--env", "LR=0.1=x"]
    words += ["--min-memory", "1G", "--min-gpus", "1", "--fleet", str(fleet.file), "--detach"]
    assert run(["run", *words, "--", "sub/../train.py", "--epochs", "3"]) == 0
    assert run(["run", *words, "--", "./train.py", "--epochs", "3"]) == 0
    assert capsys.readouterr().out.endswith("mine\n")
    body = [b for method, path, b in fleet.asked if (method, path) == ("POST", "/v1/jobs")][-1]
    script = body["script"]
    assert isinstance(script, dict)
    assert script["command"] == ["train.py", "--epochs", "3"]
    assert script["environment"] == {"LR": "0.1=x"}
    assert script["max_restarts"] == 1
    wishes = body["wishes"]
    assert wishes == script["wishes"]
    assert isinstance(wishes, dict)
    for key, value in {
        "min_nodes": 2,
        "max_nodes": 4,
        "labels": ["gpu", "ssd"],
        "min_memory": 1 << 30,
        "min_gpus": 1,
        "priority": 7,
    }.items():
        assert wishes[key] == value
    assert wishes.get("ranks_per_node") is None
    manifest = body["manifest"]
    assert isinstance(manifest, dict)
    assert [e["path"] for e in manifest["entries"]] == ["code/sub/deep.py", "code/train.py"]


# ── on a real fleet ───────────────────────────────────────────────────────────────────────────


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "rig")
    rig.root.mkdir()
    rig.coordinator()
    rig.worker("a")
    rig.worker("b")
    yield rig
    rig.close()


def llamaforge(rig: Rig, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llamaforge", *words, "--fleet", str(rig.fleet_file)]
    place = command.index("--") if "--" in command else len(command)
    command = [*command[:place], *command[-2:], *command[place:-2]]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


async def test_two_nodes_run_it_again_after_a_failure(rig: Rig, project: Path) -> None:
    """The first attempt fails on one node; the second one ends well on both, at its own pace.

    An empty file, such as an `__init__.py`, travels as well.
    """
    (project / "train.py").write_text("""
import os, sys, time
import sub.deep
attempt, rank = os.environ["TORCHELASTIC_RESTART_COUNT"], os.environ["RANK"]
print("attempt", attempt, "of", rank, "on", os.environ["GROUP_RANK"], sys.argv[1:], flush=True)
if attempt == "0" and rank == "1":
    raise ValueError("learning rate is negative")
if rank == "1":
    time.sleep(1)  # longer than rank 0
open(os.environ["LLAMAFORGE_OUTPUT"] + "/result", "w").write(rank)
""")
    await rig.waiting("a", "b")
    done = llamaforge(rig, "run", "--nodes", "2", "--name", "mine", "--", "train.py", "-x")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for line in ("attempt 0 of 1 on 1 ['-x']", "attempt 1 of 0 on 0 ['-x']"):
        assert [one for one in lines if one.endswith(line)], lines
    assert "ValueError: learning rate is negative" in done.stderr
    assert (project / "runs" / "mine" / "result").read_text() == "0"


async def test_a_script_that_always_fails_names_node_rank_code_and_lines(
    rig: Rig, project: Path
) -> None:
    (project / "train.py").write_text("""
import os, sys, time
if os.environ["RANK"] == "1":
    print("the table is empty", flush=True)
    os._exit(7)
time.sleep(60)
""")
    await rig.waiting("a", "b")
    words = ("--nodes", "2", "--max-restarts", "0", "--name", "bad")
    done = llamaforge(rig, "run", *words, "--", "train.py")
    assert done.returncode == 1
    for word in ("rank 1 on b", "exit code 7", "the table is empty"):
        assert word in done.stderr
    await rig.waiting("a", "b")
