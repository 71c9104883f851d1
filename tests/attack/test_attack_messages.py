"""Every message, both ways, made of nonsense: it is refused, or it can be kept and told again."""

from __future__ import annotations

import contextlib
import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nonsense import EVERYTHING, FROM_WORKER, json_values, spoil

from llamaforge.coordinator.http import hearsay
from llamaforge.wire.api import Submission
from llamaforge.wire.messages import FromCoordinator, FromWorker, RankSaid
from llamaforge.wire.session import Session

TYPES = list({str(kind): kind for kind, _ in EVERYTHING}.values())
UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeError)


def read(data: bytes, kind: Any) -> None:
    try:
        value = msgspec.json.decode(data, type=kind)
    except UNREADABLE:
        return
    try:
        again = msgspec.json.encode(value)
    except OverflowError:  # an option of a job that no job has; the request is refused
        assert kind in (Submission, FromCoordinator), data
        return
    assert msgspec.json.encode(msgspec.json.decode(again, type=kind)) == again


@given(st.sampled_from(TYPES), json_values)
def test_any_json(kind: Any, value: Any) -> None:
    read(json.dumps(value).encode(), kind)


@given(st.sampled_from(TYPES), st.binary(max_size=200))
def test_any_bytes(kind: Any, data: bytes) -> None:
    read(data, kind)


@pytest.mark.parametrize("seed", range(8))
def test_messages_that_are_nearly_right(seed: int) -> None:
    chance = random.Random(seed)
    for kind, body in EVERYTHING:
        for _ in range(25):
            read(spoil(body, chance), kind)


@pytest.mark.parametrize("seed", range(4))
def test_a_session_takes_frames_or_refuses_them(seed: int) -> None:
    """Whatever a frame's number says, the next one can be counted, and kept in the ledger."""
    chance = random.Random(seed)
    for body in FROM_WORKER * 20:
        session: Session[Any, FromWorker] = Session(FromWorker)
        frame = {"number": chance.choice((-1, 0, 1, 2**53, 2**63, 10**40)), "body": 0}
        data = json.dumps(frame).encode().replace(b"0}", spoil(body, chance) + b"}")
        with contextlib.suppress(msgspec.MsgspecError):
            session.take(data)
        assert 0 <= session.received < 2**63


@pytest.mark.parametrize("where", ["line", "fields", "proof"])
def test_what_is_nested_too_deeply_to_be_read_again_is_refused(where: str) -> None:
    of = {"line": "metric", "fields": "note", "proof": "finished"}
    report = {"type": of[where], where: json.loads('{"a":' + "[" * 100 + "]" * 100 + "}")}
    more: dict[str, dict[str, Any]] = {
        "line": {}, "fields": {"kind": "k", "text": "t"}, "proof": {"artifacts": "/x"}
    }  # fmt: skip
    said = {"type": "rank_said", "job_id": "j", "generation": 1, "rank": 0}
    data = json.dumps({**said, "report": {**report, **more[where]}}).encode()
    message: RankSaid = msgspec.json.decode(data, type=RankSaid)
    with pytest.raises(msgspec.ValidationError, match="deep"):
        hearsay.check(message)
