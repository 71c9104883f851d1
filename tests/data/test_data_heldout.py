from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamaforge.data.heldout import from_file, parse_heldout, split
from llamaforge.data.rows import Text, encode
from llamaforge.data.scan import canonicalise
from llamaforge.data.store import Rows
from llamaforge.errors import DataError, SpecError


def fill(path: Path, count: int) -> Path:
    path.write_bytes(b"".join(encode(Text(line=n + 1, text=f"t{n}")) for n in range(count)))
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    count=st.integers(2, 200),
    fraction=st.floats(0, 0.5, exclude_min=True),
    seed=st.integers(0, 2**53),
)
def test_every_row_is_in_one_part_and_in_order(tmp_path, count, fraction, seed) -> None:
    source = fill(tmp_path / "all", count)
    made = split(source, fraction=fraction, seed=seed, train=tmp_path / "t", heldout=tmp_path / "h")
    train = [
        row.line
        for row in map(Rows(made.train.path, keep=False).__getitem__, range(made.train.rows))
    ]
    held = [
        row.line
        for row in map(Rows(made.heldout.path, keep=False).__getitem__, range(made.heldout.rows))
    ]
    assert sorted(train + held) == list(range(1, count + 1))
    assert train == sorted(train)
    assert held == sorted(held)
    assert len(held) == min(max(1, round(count * fraction)), count - 1)


def test_the_seed_decides_and_decides_alone(tmp_path: Path) -> None:
    source = fill(tmp_path / "all", 100)
    digests = [
        split(
            source, fraction=0.1, seed=seed, train=tmp_path / "t", heldout=tmp_path / "h"
        ).heldout.sha256
        for seed in (1, 1, 2)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_the_dataset_may_be_replaced_by_its_training_part(tmp_path: Path) -> None:
    source = fill(tmp_path / "all", 10)
    made = split(source, fraction=0.2, seed=0, train=source, heldout=tmp_path / "h")
    assert len(Rows(source)) == made.train.rows == 8


def test_one_row_can_not_be_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 usable row"):
        split(
            fill(tmp_path / "all", 1),
            fraction=0.5,
            seed=0,
            train=tmp_path / "t",
            heldout=tmp_path / "h",
        )


@pytest.mark.parametrize(("value", "meant"), [("0.05", 0.05), ("1e-3", 0.001), ("0.5", 0.5)])
def test_numbers_are_fractions(value: str, meant: float) -> None:
    assert parse_heldout(value) == meant


def test_anything_else_is_a_file(tmp_path: Path, monkeypatch) -> None:
    assert parse_heldout("a/b.jsonl") == Path("a/b.jsonl")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7").touch()
    assert parse_heldout("7") == Path("7")


@pytest.mark.parametrize(
    ("value", "hint"), [("0", "0.05"), ("0.6", "0.05"), ("-1", ""), ("5%", "0.05"), ("nan", "0.05")]
)
def test_other_numbers_are_refused(value: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_heldout(value)
    assert hint in caught.value.hint


def test_a_file_of_its_own(tmp_path: Path) -> None:
    rows = tmp_path / "a.jsonl"
    rows.write_text('{"text": "a"}\n{"text": "b"}\n')
    other = tmp_path / "b.csv"
    other.write_text("prompt,completion\nx,y\n")
    scanned = canonicalise(rows, out=tmp_path / "t")
    made = from_file(scanned, tmp_path / "t", source=other, out=tmp_path / "h")
    assert (made.train.rows, made.heldout.rows) == (2, 1)
    assert made.train.sha256 == scanned.sha256
    assert made.report is not None
    assert made.report.format == "prompt-completion"
