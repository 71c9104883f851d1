"""One rank fails, wherever it stands: all end soon, and what went wrong there is what is told.

Real processes. The ranks that are left wait in a collective; none of them may sit out its patience.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from jobs import make_job
from llamaforge.spec.job import Job
from models import TEMPLATE, make_model
from ranks import Ended, lay_out, run_ranks

CONSEQUENCES = {"GroupBroken", "PeerFailed"}
LONGEST = 60.0
"""Seconds; what a collective waits for a silent peer is ten minutes."""

ROWS = [
    {"instruction": f"say {n}", "output": word} for n in range(8) for word in ("one", "two", "six")
]


def job(**options: Any) -> Job:
    return make_job(rows=20, rows_per_step=10, heldout_rows=4, **{"epochs": 2, **options})


def run(asked: Job, bundle: Path, work: Path) -> Ended:
    begin = time.monotonic()
    ended = run_ranks(asked, bundle, work, ranks=2, speeds=[1.0, 1.0])
    assert time.monotonic() - begin < LONGEST
    return ended


def causes(ended: Ended) -> list[tuple[str, str]]:
    """What failed, without what only follows from it."""
    assert all(ended.codes), ended.codes
    return [(f.kind, f.message) for f in ended.failures if f.kind not in CONSEQUENCES]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "bundle", make_model(tmp_path / "model"), ROWS, heldout=4)


def poison(model: Path, letter: str) -> None:
    """Makes the embedding of one letter NaN."""
    weights = load_file(model / "model.safetensors")
    (token,) = AutoTokenizer.from_pretrained(model).encode(letter, add_special_tokens=False)
    weights["model.embed_tokens.weight"][token] = math.nan
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def test_in_a_step(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    poison(model, "Q")
    bad = {"instruction": "Q", "output": "answer"}
    bundle = lay_out(tmp_path / "bundle", model, [*ROWS, bad], heldout=4)
    asked = make_job(rows=21, rows_per_step=7, heldout_rows=4, epochs=2)
    ((kind, message),) = causes(run(asked, bundle, tmp_path / "work"))
    assert kind == "NotFinite"
    assert "row 20" in message


def test_in_an_evaluation(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    poison(model, "Q")
    bad = {"instruction": "Q", "output": "answer"}
    bundle = lay_out(tmp_path / "bundle", model, [bad, *ROWS], heldout=4)
    ended = run(make_job(rows=21, rows_per_step=7, heldout_rows=4), bundle, tmp_path / "work")
    assert causes(ended) == [("NotFinite", "held-out row 0: the loss is nan")]
    assert [f.hint for f in ended.failures if "line 1 of the held-out" in f.hint]
    assert {f.kind for f in ended.failures} == {"NotFinite", "PeerFailed"}


def test_while_sampling(tmp_path: Path) -> None:
    template = TEMPLATE.replace(
        "{{ m.content }}", "{{ raise_exception('no') if m.content == 'boom' else m.content }}"
    )
    model = make_model(tmp_path / "model", template=template)
    bundle = lay_out(tmp_path / "bundle", model, ROWS, heldout=4)
    asked = job(sample_prompts=("boom",))
    ((kind, message),) = causes(run(asked, bundle, tmp_path / "work"))
    assert kind == "DataError"
    assert "refuses it: no" in message


def test_while_saving(bundle: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "checkpoints").write_text("in the way")
    ((_, message),) = causes(run(job(save_steps=1), bundle, work))
    assert "checkpoints" in message


def test_while_writing_the_outputs(bundle: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "artifacts").write_text("in the way")
    ((_, message),) = causes(run(job(), bundle, work))
    assert "artifacts" in message
