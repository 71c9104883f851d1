from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.errors import IntegrityError
from llamaforge.monitor.lines import Lines, read


def test_a_line_can_be_read_as_soon_as_it_is_appended(tmp_path):
    path = tmp_path / "job" / "metrics.jsonl"
    with Lines(path) as lines:
        lines.append({"step": 1, "node": "küche"})
        assert read(path) == [{"step": 1, "node": "küche"}]
        assert "küche" in path.read_text(encoding="utf-8")


def test_no_file_has_no_lines(tmp_path):
    assert read(tmp_path / "absent.jsonl") == []


def test_a_reopened_file_goes_on(tmp_path):
    path = tmp_path / "x.jsonl"
    for step in (1, 2):
        with Lines(path) as lines:
            lines.append({"step": step})
    assert path.read_text() == '{"step":1}\n{"step":2}\n'


def test_not_a_number_becomes_null_and_stays_json(tmp_path):
    with Lines(tmp_path / "x.jsonl") as lines:
        lines.append({"loss": float("nan")})
    assert read(tmp_path / "x.jsonl") == [{"loss": None}]


@given(st.integers(min_value=0, max_value=40))
def test_wherever_a_crash_tears_the_file_whole_lines_stay_and_the_next_one_is_whole(
    tmp_path_factory, cut
):
    path = tmp_path_factory.mktemp("torn") / "x.jsonl"
    whole = b'{"step":1}\n{"step":2,"text":"a"}\n{"s":3}\n'
    path.write_bytes(whole[:cut])
    expected = [{"step": 1}, {"step": 2, "text": "a"}, {"s": 3}][: whole[:cut].count(b"\n")]
    assert read(path) == expected
    with Lines(path) as lines:
        lines.append({"step": 9})
    assert read(path) == [*expected, {"step": 9}]


def test_zeros_that_a_power_cut_left_in_the_last_line_are_dropped(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"step":1}\n' + bytes(40) + b"\n")
    assert read(path) == [{"step": 1}]


def test_damage_before_the_last_line_is_named(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"step":1}\n[2]\n{"step":3}\n')
    with pytest.raises(IntegrityError, match=r"x\.jsonl:2: not a JSON object"):
        read(path)


def test_a_killed_process_loses_no_line_that_it_appended(tmp_path):
    path = tmp_path / "x.jsonl"
    program = (
        "import sys, pathlib; from llamaforge.monitor.lines import Lines\n"
        "lines = Lines(pathlib.Path(sys.argv[1]))\n"
        "for step in range(50): lines.append({'step': step})\n"
        "print('written', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"written\n"
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert [line["step"] for line in read(path)] == list(range(50))
