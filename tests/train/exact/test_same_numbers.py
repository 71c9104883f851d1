"""The promise: any number of ranks, any shares, any interruption, the same SHA-256.

Real processes, real Gloo, real checkpoints; a random small Llama.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from jobs import make_job
from llamaforge.bundle import checkpoints
from llamaforge.spec.job import Job
from models import make_model
from ranks import Ended, lay_out, run_ranks

STEPS = 42
WORDS = ("the worker waits for a job and trains its share of every step until all is done").split()  # noqa: SIM905


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of very different lengths, so that slices and shares are uneven."""
    chance = random.Random(seed)
    return [
        {
            "instruction": " ".join(chance.choices(WORDS, k=chance.randint(1, 12))),
            "output": " ".join(chance.choices(WORDS, k=chance.randint(1, 9))),
        }
        for _ in range(count)
    ]


def job(method: str, **options: Any) -> Job:
    defaults: dict[str, Any] = {
        "method": method,
        "lora_dropout": 0.1 if method == "lora" else 0.0,
        "learning_rate": 3e-3,
        "epochs": 3,
        "max_steps": STEPS,
        "slice_tokens": 160,
        "save_minutes": 0.0,
        "weight_decay": 0.01,
    }
    return make_job(rows=147, rows_per_step=10, heldout_rows=20, **{**defaults, **options})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    return lay_out(folder / "bundle", make_model(folder / "model"), rows(167), heldout=20)


@pytest.fixture(scope="module", params=["lora", "full"])
def alone(
    request: pytest.FixtureRequest, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Ended]:
    """An undisturbed run on one rank."""
    ended = run_ranks(job(request.param), bundle, tmp_path_factory.mktemp("alone"))
    assert ended.codes == [0], ended.output
    assert ended.proof["steps"] == STEPS
    return request.param, ended


def assert_same(ended: Ended, expected: Ended) -> None:
    assert set(ended.codes) == {0}, ended.output
    for key in ("weights_sha256", "optimizer_sha256", "order_sha256", "rows_trained"):
        assert ended.proof[key] == expected.proof[key], key
    assert ended.proof["heldout_loss_after"] == expected.proof["heldout_loss_after"]


@pytest.mark.parametrize("speeds", [[1.0, 1.0], [1.0, 1.0, 1.0], [5.0, 1.0, 2.0]], ids=str)
def test_any_ranks_and_shares(
    alone: tuple[str, Ended], bundle: Path, tmp_path: Path, speeds: list[float]
) -> None:
    method, expected = alone
    ended = run_ranks(job(method), bundle, tmp_path, ranks=len(speeds), speeds=speeds)
    assert_same(ended, expected)
    assert ended.losses == expected.losses, "every reported loss, too, is the same number"
    assert ended.proof["guarantee"] == "same numbers"
    assert ended.proof["steps_redone"] <= STEPS / 100
    busy = {node for line in ended.metrics for node, n in line.get("shares", {}).items() if n}
    assert len(busy) == len(speeds), "every rank computed something"


def test_stopped_and_resumed_with_other_ranks(
    alone: tuple[str, Ended], bundle: Path, tmp_path: Path
) -> None:
    method, expected = alone
    first = run_ranks(job(method), bundle, tmp_path / "first", ranks=2, stop_at=17)
    assert first.stopped
    assert first.codes == [0, 0], first.output
    step = first.proof["steps"]
    assert 17 <= step < STEPS
    saved = checkpoints.newest(tmp_path / "first" / "checkpoints").checkpoint
    assert saved is not None
    assert saved.step == step
    again = tmp_path / "bundle"
    again.mkdir()
    for part in ("data", "model"):
        (again / part).symlink_to(bundle / part)
    (again / "resume").symlink_to(saved.path)
    second = run_ranks(job(method), again, tmp_path / "second", ranks=3, generation=2)
    assert_same(second, expected)
    assert first.losses + second.losses == expected.losses, "no step lost, none repeated"
    assert [g["generation"] for g in second.proof["generations"]] == [1, 2]


def test_training_moves_the_weights(alone: tuple[str, Ended]) -> None:
    """The digests above would agree as well if nothing were ever trained."""
    _, ended = alone
    assert ended.proof["heldout_loss_after"] < ended.proof["heldout_loss_before"] - 0.1
    assert ended.proof["rows_trained"] == 147 + 147 + 12 * 10
