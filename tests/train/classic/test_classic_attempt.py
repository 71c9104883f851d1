"""What an attempt says about itself, and whose message stands when it ends."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest
from torch.distributed import HashStore

from jobs import make_job
from llamaforge.errors import FleetError, LlamaForgeError, SpecError
from llamaforge.spec.ranks import Failed, Finished
from llamaforge.train.ballot import PeerFailed
from llamaforge.train.classic import attempt as room
from llamaforge.train.classic.attempt import Here, attempt, exit_code, rows_per_step
from llamaforge.train.classic.exchange import Exchange
from llamaforge.train.classic.launch import Launch
from llamaforge.train.classic.leave import Leave
from llamaforge.train.group import GroupBroken


def exchange(rank: int = 0, store: HashStore | None = None) -> Exchange:
    launch = Launch(rank=rank, world_size=2, node=rank, nodes=2)
    return Exchange(store or HashStore(), launch)


def test_symptoms_are_errors_that_exist() -> None:
    kinds = (GroupBroken, PeerFailed, FleetError)
    assert {kind.__name__ for kind in kinds} == set(room.SYMPTOMS)


def test_a_lost_peer_gives_way_to_what_the_peer_said() -> None:
    here = exchange()
    peer = Exchange(here.store, Launch(rank=1, world_size=2, node=1, nodes=2))
    threading.Timer(0.2, peer.refuse, [LlamaForgeError("loss is NaN in step 7")]).start()
    assert room._first_cause(here, GroupBroken("lost a peer")).message == "loss is NaN in step 7"


def test_a_lost_peer_that_says_nothing_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_CAUSE_SECONDS", 0.05)
    assert room._first_cause(exchange(), GroupBroken("lost a peer")).message == "lost a peer"


def test_a_cause_is_told_at_once_and_to_all() -> None:
    here = exchange()
    room._first_cause(here, SpecError("rank is too high"))
    heard = here.refusal()
    assert heard is not None
    assert (heard.message, heard.user_error) == ("rank is too high", True)


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (Finished(artifacts="", proof={}), 0),
        (Finished(artifacts="", proof={}, stopped=True), 0),
        (Failed(kind="X", message="x"), 1),
        (Failed(kind="X", message="x", user_error=True), 2),
    ],
)
def test_exit_codes(ended: Finished | Failed, code: int) -> None:
    assert exit_code(ended) == code


def test_rows_per_step_say_where_they_come_from() -> None:
    job = make_job(rows=40, rows_per_step=8, batch_size=4)
    assert rows_per_step(job, 2) == "8 rows per step = 4 per process x 2 processes"
    assert rows_per_step(job, 3) == "8 rows per step, kept from the checkpoint"


def test_a_restart_among_several_nodes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = HashStore()
    monkeypatch.setattr(room.Exchange, "open", lambda launch: Exchange(store, launch))
    launch = Launch(rank=1, world_size=2, node=1, nodes=2, attempt=1)
    here = Here(launch=launch, node_name="pi", cache=tmp_path, folder=tmp_path)
    ended = attempt(here, None, Leave())
    assert isinstance(ended, Failed)
    assert ended.user_error
    assert "node pi: torchrun restarted" in capsys.readouterr().err
    heard = msgspec.json.decode(store.get("refusal"), type=Failed)
    assert heard.message == ended.message
    assert "--auto-resume" in heard.hint


def test_a_bug_keeps_its_traceback_and_reaches_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = HashStore()
    monkeypatch.setattr(room.Exchange, "open", lambda launch: Exchange(store, launch))
    monkeypatch.setattr(room, "gather", lambda *_: 1 / 0)
    launch = Launch(rank=1, world_size=2, node=1, nodes=2)
    ended = attempt(
        Here(launch=launch, node_name="pi", cache=tmp_path, folder=tmp_path), None, Leave()
    )
    assert isinstance(ended, Failed)
    assert ended.message == "node pi: ZeroDivisionError: division by zero"
    assert "Traceback" in capsys.readouterr().err
    assert not ended.user_error
