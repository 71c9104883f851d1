import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from llamaforge.data.rows import Chat, Text
from llamaforge.data.scan import canonicalise
from llamaforge.data.store import Rows
from llamaforge.errors import DataError, SpecError, UserError


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_scan_counts_what_it_uses_and_what_it_drops(tmp_path: Path) -> None:
    rows = [{"instruction": f"i{n}", "output": "" if n % 2 else "x"} for n in range(20)]
    source = write(tmp_path / "a.jsonl", *rows, rows[0], {"instruction": "", "output": "x"})
    out = tmp_path / "out.jsonl"
    report = canonicalise(source, out=out)
    assert (report.rows, report.rows_dropped, report.duplicates) == (11, 11, 1)
    assert report.format == "alpaca"
    assert [(d.reason, d.rows) for d in report.dropped] == [
        ("empty completion", 10),
        ("empty instruction", 1),
    ]
    assert report.dropped[0].first == tuple(f"{source}:{n}" for n in (2, 4, 6, 8, 10))
    assert report.sha256 == hashlib.sha256(out.read_bytes()).hexdigest()
    assert report.size == out.stat().st_size
    assert [row.line for row in map(Rows(out).__getitem__, range(11))][-2:] == [19, 21]


def test_the_same_rows_in_two_kinds_of_file_are_the_same_bytes(tmp_path: Path) -> None:
    lines = write(tmp_path / "a.jsonl", {"text": "x"}, {"text": "y"})
    table = tmp_path / "a.csv"
    table.write_text("text\nx\ny\n")
    first = canonicalise(lines, out=tmp_path / "1")
    second = canonicalise(table, out=tmp_path / "2", format="text")
    assert first.sha256 == second.sha256


def test_one_row_is_enough(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", {"text": "x"})
    assert canonicalise(source, out=tmp_path / "out").rows == 1
    assert Rows(tmp_path / "out")[0] == Text(line=1, text="x")


def test_fields_and_format_are_heeded(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", {"q": "x", "text": "y"})
    mapping = {"instruction": "q", "output": "text"}
    canonicalise(source, out=tmp_path / "out", format="alpaca", fields=mapping)
    row = Rows(tmp_path / "out")[0]
    assert isinstance(row, Chat)
    assert [turn.content for turn in row.turns] == ["x", "y"]
    with pytest.raises(SpecError, match="'instruction' is not a name that text knows"):
        canonicalise(source, out=tmp_path / "out", format="text", fields=mapping)


def test_a_wrong_row_leaves_no_file_and_keeps_the_old_one(tmp_path: Path) -> None:
    good = write(tmp_path / "good.jsonl", {"text": "x"})
    bad = write(tmp_path / "bad.jsonl", {"text": "x"}, {"text": 1})
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"bad\.jsonl:2: 'text' must be text"):
        canonicalise(bad, out=out)
    assert not out.exists()
    canonicalise(good, out=out)
    before = out.read_bytes()
    with pytest.raises(DataError):
        canonicalise(bad, out=out)
    assert out.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.jsonl", "good.jsonl", "out"]


def test_a_row_of_another_layout_is_named_by_line(tmp_path: Path) -> None:
    rows = [{"instruction": "x", "output": "y"}] * 3
    source = write(tmp_path / "a.jsonl", *rows, {"text": "z"})
    with pytest.raises(DataError, match=r"a\.jsonl:4: no 'instruction', which alpaca needs"):
        canonicalise(source, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "has no rows"),
        ('{"text": ""}\n{"text": " "}', "has no usable rows: 2 with empty text"),
    ],
)
def test_nothing_usable_says_why(tmp_path: Path, content: str, message: str) -> None:
    source = tmp_path / "a.json"
    source.write_text(content)
    with pytest.raises(DataError, match=message):
        canonicalise(source, out=tmp_path / "out")


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", {"text": "x"})
    with pytest.raises(UserError, match="can't write"):
        canonicalise(source, out=tmp_path / "nowhere" / "out")
