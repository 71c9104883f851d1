import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llamaforge.data.readers import lines as lines_module
from llamaforge.data.readers import open_source
from llamaforge.errors import DataError

ROWS = [{"a": "1", "b": "é"}, {"a": "2", "b": "two\nlines"}]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes | str], Path]:
    def _write(name: str, content: bytes | str) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return _write


def refused(path: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        list(open_source(path).rows())
    return caught.value


def jsonl(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("name", "content", "numbers"),
    [
        ("r.jsonl", jsonl(ROWS), [1, 2]),
        ("r.jsonl", jsonl(ROWS).rstrip("\n"), [1, 2]),
        ("r.jsonl", "\n  \n" + jsonl(ROWS).replace("\n", "\r\n\r\n"), [3, 5]),
        ("bom.jsonl", "\ufeff" + jsonl(ROWS), [1, 2]),
        ("r.ndjson", jsonl(ROWS), [1, 2]),
        ("lines.json", "\n" + jsonl(ROWS), [2, 3]),
        ("r.json", json.dumps(ROWS), [1, 2]),
        ("bom.json", "\ufeff" + json.dumps(ROWS, indent=2), [1, 2]),
        ("wrapped.json", json.dumps({"data": ROWS}), [1, 2]),
        ("pretty.json", json.dumps({"data": ROWS}, indent=1), [1, 2]),
        ("array.jsonl", json.dumps(ROWS), [1, 2]),
        ("no_ending", jsonl(ROWS), [1, 2]),
        ("r.csv", 'a,b\n1,é\n\n2,"two\nlines"\n', [1, 2]),
        ("bom.csv", '\ufeffa,b\r\n1,é\r\n2,"two\nlines"\r\n', [1, 2]),
        ("r.tsv", 'a\tb\n1\té\n2\t"two\nlines"', [1, 2]),
        ("semicolon.csv", 'a;b\n1;é\n2;"two\nlines"', [1, 2]),
    ],
)
def test_every_spelling_of_the_same_rows(write, name, content, numbers) -> None:
    read = list(open_source(write(name, content)).rows())
    assert [row for _, row in read] == ROWS
    assert [number for number, _ in read] == numbers


def test_parquet_batches_keep_counting(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    pq.write_table(pa.Table.from_pylist([{"a": str(i)} for i in range(600)]), path)
    read = list(open_source(path).rows())
    assert read[0] == (1, {"a": "0"})
    assert read[-1] == (600, {"a": "599"})
    assert open_source(path).where(600).endswith("r.parquet: row 600")


def test_parquet_under_another_name_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "r.data"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    assert [row for _, row in open_source(path).rows()] == ROWS


def test_parquet_with_broken_text_names_the_row(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    good, bad = b"x", b"ab\xff"
    array = pa.array([good, bad], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"a": array}), path)
    assert "r.parquet: row 2: byte 3 of a text (0xff) is not UTF-8" in refused(path).message


def test_truncated_parquet_is_a_data_error(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    path.write_bytes(path.read_bytes()[:-20])
    assert "not a readable Parquet file" in refused(path).message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.jsonl", '{"a": 1}\n{"a": 2,}\n', "r.jsonl:2: column 9: not valid JSON"),
        ("r.jsonl", '{"a": 1}\n{"a": \n', "r.jsonl:2: column"),
        ("r.jsonl", '{"a": 1}\n\n[1]\n', "r.jsonl:3: a row must be a JSON object"),
        ("r.jsonl", '{"a": NaN}\n', "r.jsonl:1: not valid JSON: NaN"),
        ("r.jsonl", '{"a": "\\ud800"}\n', "half of a surrogate pair"),
        ("r.jsonl", '{"a": ' + "[" * 100_000 + "\n", "nested too deeply"),
        ("r.jsonl", b'{"a": 1}\n{"a": "caf\xe9"}\n', "r.jsonl:2: byte 11 (0xe9) is not UTF-8"),
        ("r.jsonl", b'\xef\xbb\xbf{"a": "\xe9"}\n', "r.jsonl:1: byte 11 (0xe9) is not UTF-8"),
        ("r.json", b'[\n {"a": "\xe9"}]', "r.json:2: byte 9 (0xe9) is not UTF-8"),
        ("r.json", '[\n {"a": 1},\n {"a" 2}]', "r.json:3: column 7: not valid JSON"),
        ("r.json", '[{"a": 1}, 2]', "r.json: row 2: a row must be a JSON object"),
        ("r.json", '{\n"train": [{"a": 1}]}', "holds an object with 'train'"),
        ("r.json", "3", "holds a single value"),
        ("r.csv", "a,b\n1,2\n1,2,3\n", "row 2 (ending in line 3) has 3 fields, the header has 2"),
        ("r.csv", 'a,b\n1,"2\n', "r.csv:2: not valid CSV"),
        ("r.csv", "a,a\n1,2\n", "the header names 'a' twice"),
        ("r.csv", b"a\n\xe9\n", "r.csv:2: byte 1 (0xe9) is not UTF-8"),
        ("r.parquet", "hello", "is not a Parquet file"),
        ("empty.jsonl", "", "empty.jsonl is empty"),
        ("blank.json", " \n\n", "blank.json is empty"),
        ("r.txt", "hello", "can't tell what kind of file this is"),
    ],
)
def test_what_is_wrong_is_named(write, name, content, message) -> None:
    assert message in refused(write(name, content)).message


def test_utf16_gets_its_own_advice(write) -> None:
    assert "iconv -f UTF-16" in refused(write("r.jsonl", jsonl(ROWS).encode("utf-16"))).hint


def test_compressed_rows_come_with_the_command_that_unpacks_them(write) -> None:
    path = write("r.jsonl.gz", gzip.compress(b"{}"))
    error = refused(path)
    assert "is compressed with gzip" in error.message
    assert error.hint == f"gunzip --keep {path}"


def test_a_line_without_an_end_is_refused_before_it_fills_memory(write, monkeypatch) -> None:
    monkeypatch.setattr(lines_module, "LONGEST_ROW", 100)
    assert "r.jsonl:2: the line is longer" in refused(write("r.jsonl", "{}\n" + "x" * 101)).message


def test_a_missing_file_suggests_its_neighbour(write) -> None:
    there = write("train.jsonl", "{}")
    assert str(there) in refused(there.with_name("trian.jsonl")).hint
    assert "holds train.jsonl" in refused(there.with_name("zzz")).hint
    assert "no folder" in refused(there.parent / "nowhere" / "train.jsonl").message


def test_a_folder_suggests_a_file_inside(write) -> None:
    there = write("train.jsonl", "{}")
    error = refused(there.parent)
    assert "is a folder" in error.message
    assert str(there) in error.hint


def test_a_device_is_not_a_dataset() -> None:
    assert "not a regular file" in refused(Path("/dev/null")).message


def test_jsonl_is_streamed(write) -> None:
    rows = open_source(write("r.jsonl", '{"a": 1}\nbroken')).rows()
    assert next(rows) == (1, {"a": 1})
