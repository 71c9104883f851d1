"""`llamaforge train`, `--dry-run` and `try` as a person runs them: real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROWS = [
    {"instruction": f"Say the number {n}.", "input": "", "output": f"number {n}"} for n in range(12)
]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A current folder with rows, and state and cache of its own."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder


def environment(here: Path) -> dict[str, str]:
    own = {
        "XDG_CACHE_HOME": str(here.parent / "cache"),
        "XDG_STATE_HOME": str(here.parent / "state"),
        "TMPDIR": str(here.parent / "tmp"),
    }
    (here.parent / "tmp").mkdir(exist_ok=True)
    return {**os.environ, **own}


def llamaforge(here: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llamaforge", *arguments],
        cwd=here,
        env=environment(here),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


TRAIN = ("train", "--model", "tiny", "--dataset", "rows.jsonl")


def test_train_then_try(here: Path) -> None:
    more = ("--batch-size", "4", "--max-steps", "2", "--heldout", "0.25", "--name", "job")
    done = llamaforge(here, *TRAIN, *more, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    said = lines(done.stdout)
    steps = [s["line"]["step"] for s in said if s["type"] == "metric" and "loss" in s["line"]]
    assert steps == [1, 2]
    summary = said[-1]
    assert (summary["type"], summary["state"], summary["steps"]) == ("summary", "done", 2)
    assert summary["guarantee"] == "same numbers"
    assert summary["heldout_loss_before"] > 0
    assert (here / "runs" / "job" / "adapter_model.safetensors").is_file()
    assert {"adapter", "metrics", "proof"} <= set(summary["files"])

    again = llamaforge(here, *TRAIN, "--name", "job")
    assert again.returncode == 2
    assert "is not empty" in again.stderr
    assert "--auto-resume" in again.stderr

    asked = llamaforge(here, "try", "job", "--json", "--max-tokens", "4", stdin="One\n\nTwo\n")
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert [s["prompt"] for s in lines(asked.stdout)] == ["One", "Two"]
    scored = llamaforge(here, "try", "job", "--rows", "rows.jsonl", "--limit", "2")
    assert "exact matches: before" in scored.stdout


def test_a_killed_worker_of_a_private_fleet_is_started_again(here: Path) -> None:
    """There is no other worker and no systemd, and the job waits for one."""
    more = ("--batch-size", "4", "--epochs", "40", "--save-steps", "2", "--name", "job")
    command = [sys.executable, "-m", "llamaforge", *TRAIN, *more, "--json"]
    with subprocess.Popen(
        command, cwd=here, env=environment(here), stdout=subprocess.PIPE, text=True
    ) as train:
        assert train.stdout is not None
        kept = here / "runs" / "job" / "checkpoints"
        arrived = "step-????????"  # one on its way has a longer name
        before = list(until_step(train.stdout, 3, lambda: any(kept.glob(arrived))))
        worker = next(pid for pid, line in children(train.pid).items() if "worker run" in line)
        os.kill(worker, signal.SIGKILL)
        after = [json.loads(line) for line in train.stdout]
    assert train.returncode == 0, before + after
    assert after[-1]["state"] == "done"
    said = [update["text"] for update in after if update["type"] in ("remark", "note")]
    assert "worker-1 had ended and was started again" in said
    assert any("node worker-1 is lost" in text and "goes on after step" in text for text in said), (
        said
    )


def until_step(
    output: Iterable[str], step: int, also: Callable[[], bool] = lambda: True
) -> Iterator[dict[str, Any]]:
    """The updates until this step is committed, and something else is so, too."""
    for line in output:
        yield (update := json.loads(line))
        if update["type"] == "metric" and update["line"]["step"] >= step and also():
            return


def children(pid: int) -> dict[int, str]:
    """Command lines of a process's children."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {
        int(child): Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ") for child in found
    }


def test_a_dry_run_tells_all_and_leaves_nothing(here: Path) -> None:
    before = sorted(here.rglob("*"))
    done = llamaforge(here, *TRAIN, "--batch-size", "4", "--epochs", "2", "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in (
        "total_steps: 6",
        "steps     6 (3 steps of 4 rows per epoch)",
        "memory    ",
        "disk      ",
        "<|user|>Say the number 0.<|assistant|>[[number 0",
        "<|user|>Say the number 1.",
    ):
        assert expected in done.stdout
    assert sorted(here.rglob("*")) == before
    assert not (here.parent / "cache").exists()
    assert not (here.parent / "state").exists()
    assert not list((here.parent / "tmp").glob("llamaforge*"))


def test_a_dry_run_as_json(here: Path) -> None:
    done = llamaforge(here, *TRAIN, "--batch-size", "4", "--dry-run", "--json")
    (said,) = lines(done.stdout)
    assert said["type"] == "dry_run"
    assert said["job"]["total_steps"] == 3
    assert said["memory_per_rank"]["total"] > 0
    first = said["preview"]["rows"][0]["segments"]
    assert [part["trained"] for part in first] == [False, True]


def test_a_broken_row_is_named_before_anything_starts(here: Path) -> None:
    with (here / "rows.jsonl").open("a") as file:
        file.write("{not json\n")
    done = llamaforge(here, *TRAIN)
    assert done.returncode == 2
    assert "rows.jsonl:13" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (here / "runs").exists()


def test_wrong_use_of_try(here: Path) -> None:
    assert "not both" in llamaforge(here, "try", "x", "prompt", "--rows", "f").stderr
    assert "--limit goes with --rows" in llamaforge(here, "try", "x", "--limit", "2").stderr
    missing = llamaforge(here, "try", "x", "prompt")
    assert (missing.returncode, "no job 'x'" in missing.stderr) == (2, True)
