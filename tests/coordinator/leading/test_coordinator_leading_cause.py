"""What a failure is, where it was, and what class it has."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaforge.coordinator.leading import cause
from llamaforge.coordinator.leading.cause import Cause
from llamaforge.coordinator.leading.continuing import RESTARTS
from llamaforge.coordinator.leading.outcome import Setback
from llamaforge.spec.states import FailureClass, JobState

KINDS = {
    ("SpecError", "lr=-1", True): FailureClass.USER,
    ("UserError", "no such thing", True): FailureClass.USER,
    ("DataError", "row 7", True): FailureClass.DATA,
    ("ModelError", "gated", True): FailureClass.DATA,
    ("Occupied", "port 29500 is in use", True): FailureClass.ENVIRONMENT,
    ("OSError", "[Errno 5] Input/output error", False): FailureClass.ENVIRONMENT,
    ("ImportError", "libGL.so.1: cannot open shared object", False): FailureClass.ENVIRONMENT,
    ("IntegrityError", "blob 12ab is damaged", False): FailureClass.ENVIRONMENT,
    ("RuntimeError", "CUDA error: device-side assert", False): FailureClass.ENVIRONMENT,
    ("MemoryError", "", False): FailureClass.MEMORY,
    ("OutOfMemoryError", "CUDA out of memory. Tried to", False): FailureClass.MEMORY,
    ("RuntimeError", "DefaultCPUAllocator: can't allocate memory", False): FailureClass.MEMORY,
    ("GroupBroken", "rank 0 lost a peer", False): FailureClass.NODE_LOST,
    ("RuntimeError", "Connection closed by peer", False): FailureClass.NODE_LOST,
    ("RuntimeError", "shapes do not match", False): FailureClass.ERROR,
    ("NotFinite", "step 4: the loss is nan", False): FailureClass.ERROR,
}


@pytest.mark.parametrize("said", KINDS, ids=lambda said: f"{said[0]}: {said[1]}")
def test_the_class_of_what_a_rank_reports(said: tuple[str, str, bool]) -> None:
    kind, message, user_error = said
    why = cause.of_error("b", 1, kind, message, user_error=user_error)
    assert why.failure is KINDS[said]
    if not RESTARTS[why.failure]:
        assert why.setback is None
    elif kind != "NotFinite":
        assert why.setback is not None


@pytest.mark.parametrize(
    ("signal", "code", "memory", "lines", "failure"),
    [
        (9, None, "", (), FailureClass.NODE_LOST),
        (15, None, "", (), FailureClass.NODE_LOST),
        (9, None, "the job's limit of 2 GB", (), FailureClass.MEMORY),
        (11, None, "", (), FailureClass.ERROR),
        (4, None, "", (), FailureClass.ENVIRONMENT),
        (7, None, "", (), FailureClass.ENVIRONMENT),
        (None, 1, "", ("ValueError: x",), FailureClass.ERROR),
        (None, 1, "", ("torch.OutOfMemoryError: CUDA out of memory.",), FailureClass.MEMORY),
        (None, 1, "", ("MemoryError",), FailureClass.MEMORY),
    ],
)
def test_the_class_of_an_end_without_a_report(
    signal: int | None,
    code: int | None,
    memory: str,
    lines: tuple[str, ...],
    failure: FailureClass,
) -> None:
    assert cause.of_exit("b", 1, code, signal, lines, memory=memory).failure is failure


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("NoSpace", "worker's cache"),
        ("OSError", f"[Errno 28] {os.strerror(errno.ENOSPC)}"),
        ("LlamaForgeError", "the checkpoint of step 3 can't be saved in /x: the disk is full"),
        ("ModelError", f"x can't be downloaded: {os.strerror(errno.EDQUOT)}"),
    ],
)
def test_a_full_disk_is_known_as_one_and_is_nobodys_mistake(kind: str, message: str) -> None:
    outcome = cause.of_error("b", 1, kind, message, user_error=kind == "ModelError").outcome()
    assert outcome.full_disk
    assert outcome.failure is FailureClass.ENVIRONMENT
    assert outcome.setback is not None


def test_a_failure_says_node_rank_exit_code_cause_and_last_lines() -> None:
    why = cause.of_error("b", 1, "RuntimeError", "boom", hint="do this", user_error=False)
    outcome = cause.with_end(why, 1, None, ("a line", "the last line")).outcome()
    assert outcome.reason.splitlines() == [
        "rank 1 on b failed: RuntimeError: boom (exit code 1)",
        "  its last lines:",
        "    a line",
        "    the last line",
    ]
    assert (outcome.node, outcome.hint, outcome.state) == ("b", "do this", JobState.FAILED)
    assert outcome.said == "failed: RuntimeError: boom"  # the same words whoever said them
    assert "(SIGABRT)" in str(cause.with_end(why, None, 6, ()))


def test_a_hang_names_rank_reason_and_where_the_stacks_are() -> None:
    why = cause.of_hang("b", 3, "it is stopped (state T)", seconds=14.2)
    assert str(why) == (
        "rank 3 on b hangs: nothing has moved for 14 s, and it stopped first: "
        "it is stopped (state T)"
    )
    assert (why.failure, why.setback) == (FailureClass.HANG, Setback.LOST)
    assert "hangs/" in why.hint


CAUSES = st.lists(
    st.builds(
        Cause, node=st.sampled_from("ab"), what=st.sampled_from("xy"), consequence=st.booleans()
    ),
    min_size=1,
)


@given(CAUSES)
def test_the_first_cause_is_no_consequence_where_there_is_another(causes: list[Cause]) -> None:
    first = cause.first(causes)
    assert first.consequence == all(one.consequence for one in causes)
    assert first is next(one for one in causes if one.consequence == first.consequence)


@given(st.text(), st.text(), st.booleans())
def test_whatever_is_reported_has_a_class(kind: str, message: str, user_error: bool) -> None:
    why = cause.of_error("a", 0, kind, message, user_error=user_error)
    assert why.failure in RESTARTS
    assert str(why)
