"""Which job or node a person means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.fake_fleet import a_job, a_node
from llamaforge.cli.names import one_job, one_node
from llamaforge.errors import UserError

JOBS = [a_job("tiny-lora-3f2a"), a_job("tiny-lora-77aa"), a_job("big-full-3f2b"), a_job("tiny")]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("tiny-lora-3f2a", "tiny-lora-3f2a"),
        ("tiny", "tiny"),  # the whole id wins over others that begin with it
        ("tiny-lora-7", "tiny-lora-77aa"),
        ("big", "big-full-3f2b"),
        ("77aa", "tiny-lora-77aa"),
        ("2b", "big-full-3f2b"),
    ],
)
def test_beginning_or_end_is_enough(name: str, meant: str) -> None:
    assert one_job(JOBS, name).id == meant


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("tiny-", "may be any of 2 jobs: tiny-lora-3f2a, tiny-lora-77aa", "write more"),
        ("a", "may be any of 2 jobs: tiny-lora-3f2a, tiny-lora-77aa", "write more"),
        ("tiny-lora-3f2c", "no job 'tiny-lora-3f2c'", "did you mean tiny-lora-3f2a?"),
        ("zzz", "no job 'zzz'", "there are tiny-lora-3f2a"),
        ("", "no job ''", "llamaforge jobs --all"),
        ("../tiny", "no job '../tiny'", "did you mean tiny?"),
    ],
)
def test_what_fits_none_or_several_is_said(name: str, message: str, hint: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        one_job(JOBS, name)
    assert hint in error.value.hint


def test_where_there_is_no_job_yet() -> None:
    with pytest.raises(UserError) as error:
        one_job([], "x")
    assert error.value.hint == "there is none yet"


def test_a_node_needs_its_whole_name() -> None:
    nodes = [a_node("box1"), a_node("box2")]
    assert one_node(nodes, "box2") is nodes[1]
    with pytest.raises(UserError, match="no node 'box'") as error:
        one_node(nodes, "box")
    assert "did you mean box" in error.value.hint


IDS = st.lists(st.from_regex(r"[ab]{1,3}-[ab]{1,2}", fullmatch=True), min_size=1, unique=True)


@given(IDS, st.from_regex(r"[ab-]{1,6}", fullmatch=True))
def test_never_a_job_that_does_not_fit(ids: list[str], name: str) -> None:
    begins = [job for job in ids if job.startswith(name)]
    ends = [job for job in ids if job.endswith(name)]
    try:
        found = one_job([a_job(job) for job in ids], name).id
    except UserError:
        assert name not in ids
        assert len(begins) != 1
    else:
        assert found == name or begins == [found] or (not begins and ends == [found])
