"""Messages survive the wire, and tolerate peers that say more than we know."""

from __future__ import annotations

import msgspec
import pytest

from jobs import make_job
from llamaforge.bundle.manifest import Entry, Manifest
from llamaforge.spec.ranks import Failed, Metric, StoreReady
from llamaforge.spec.states import JobState
from llamaforge.wire.messages import (
    FromCoordinator,
    FromWorker,
    Hello,
    Idle,
    RankExited,
    RankSaid,
    StartRanks,
    StopRanks,
)
from llamaforge.wire.updates import Ended, JobUpdate, MetricLine, Numbered

MANIFEST = Manifest(entries=(Entry(path="data/train.jsonl", sha256="0" * 64, size=3),))


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (Idle(), FromWorker),
        (RankExited(job_id="j", generation=1, rank=2, signal=9, last_lines=("a",)), FromWorker),
        (
            RankSaid(job_id="j", generation=1, rank=0, report=StoreReady(host="h", port=1)),
            FromWorker,
        ),
        (
            RankSaid(job_id="j", generation=1, rank=0, report=Metric(line={"loss": 1.5})),
            FromWorker,
        ),
        (
            StartRanks(
                job=make_job(),
                generation=1,
                manifest=MANIFEST,
                first_rank=0,
                count=2,
                world_size=4,
            ),
            FromCoordinator,
        ),
        (StopRanks(job_id="j", how="end", reason="r"), FromCoordinator),
        (MetricLine(line={"step": 1}), JobUpdate),
        (Ended(state=JobState.DONE, reason="", output_dir="/x", proof={"a": 1}), JobUpdate),
    ],
)
def test_round_trip(message: msgspec.Struct, kind: type) -> None:
    assert msgspec.json.decode(msgspec.json.encode(message), type=kind) == message


def test_unknown_fields_are_ignored() -> None:
    data = msgspec.json.encode(
        {"type": "hello", "node": "a", "identity": "i", "session": "s", "cores": 1, "memory": 1}
        | {"of_a_later_version": [1, 2]}
    )
    assert msgspec.json.decode(data, type=Hello).node == "a"


def test_a_report_inside_a_message_ignores_them_too() -> None:
    failed = msgspec.to_builtins(Failed(kind="E", message="m")) | {"new": 1}
    data = {"type": "rank_said", "job_id": "j", "generation": 1, "rank": 0, "report": failed}
    message = msgspec.json.decode(msgspec.json.encode(data), type=FromWorker)
    assert message.report == Failed(kind="E", message="m")


def test_an_unknown_message_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"type": "format_disk"}', type=FromCoordinator)


def test_numbers_that_json_lacks_become_null() -> None:
    update = Numbered(number=0, update=MetricLine(line={"loss": float("nan")}))
    decoded = msgspec.json.decode(msgspec.json.encode(update), type=Numbered)
    assert decoded.update == MetricLine(line={"loss": None})
