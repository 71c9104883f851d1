import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamaforge.data import store
from llamaforge.data.rows import Text, encode
from llamaforge.data.store import Rows
from llamaforge.errors import DataError, IntegrityError


def fill(path: Path, texts: list[str]) -> Path:
    path.write_bytes(b"".join(encode(Text(line=n + 1, text=t)) for n, t in enumerate(texts)))
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=("Cs",))), min_size=1), st.integers(1, 50))
def test_every_row_is_found_whatever_the_block_size(tmp_path, monkeypatch, texts, block) -> None:
    monkeypatch.setattr(store, "_BLOCK", block)
    rows = Rows(fill(tmp_path / "rows", texts), keep=False)
    assert [rows[i] for i in range(len(rows))] == [
        Text(line=n + 1, text=t) for n, t in enumerate(texts)
    ]


def test_the_table_is_kept_and_used_again(tmp_path: Path, monkeypatch) -> None:
    path = fill(tmp_path / "rows", ["a", "b"])
    Rows(path)
    monkeypatch.setattr(store, "_line_starts", lambda _: pytest.fail("computed again"))
    assert Rows(path)[1] == Text(line=2, text="b")


@pytest.mark.parametrize("damage", ["other file", "cut", "garbage", "pickle"])
def test_a_table_that_is_not_of_this_file_is_made_again(tmp_path: Path, damage: str) -> None:
    path = fill(tmp_path / "rows", ["a", "b"])
    Rows(path)
    table = tmp_path / "rows.offsets.npy"
    if damage == "other file":
        fill(path, ["ab", ""])  # the same size
        os.utime(path, ns=(1, 1))
    elif damage == "cut":
        table.write_bytes(table.read_bytes()[:-9])
    elif damage == "garbage":
        table.write_bytes(b"x" * 100)
    else:
        np.save(table, np.array([{}], dtype=object), allow_pickle=True)
    rows = Rows(path)
    assert len(rows) == 2
    assert rows[0].line == 1


def test_a_folder_that_can_not_be_written_to_is_no_obstacle(tmp_path: Path, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.np, "save", full)
    rows = Rows(fill(tmp_path / "rows", ["a"]))
    assert rows[0].line == 1
    assert [p.name for p in tmp_path.iterdir()] == ["rows"]


def test_indices_outside_are_refused(tmp_path: Path) -> None:
    rows = Rows(fill(tmp_path / "rows", ["a"]))
    for index in (-1, 1):
        with pytest.raises(IndexError, match="outside"):
            rows[index]


def test_a_damaged_row_is_not_trained(tmp_path: Path) -> None:
    path = fill(tmp_path / "rows", ["a", "b"])
    path.write_bytes(path.read_bytes()[:-3])
    rows = Rows(path)
    assert rows[0].line == 1
    with pytest.raises(IntegrityError, match="damaged"):
        rows[1]


def test_missing_and_empty_files_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't be read"):
        Rows(tmp_path / "nothing")
    (tmp_path / "empty").touch()
    with pytest.raises(DataError, match="no rows"):
        Rows(tmp_path / "empty")


def test_threads_read_at_once(tmp_path: Path) -> None:
    rows = Rows(fill(tmp_path / "rows", [str(i) for i in range(500)]))
    wrong: list[int] = []

    def read(start: int) -> None:
        wrong.extend(i for i in range(start, 500, 4) if rows[i] != Text(line=i + 1, text=str(i)))

    threads = [threading.Thread(target=read, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
