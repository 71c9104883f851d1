"""How ranks come together: as late as their nodes need, unless they are told to leave."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from datetime import timedelta

import msgspec
import pytest
from torch.distributed import HashStore, TCPStore

from jobs import make_job
from llamaforge.errors import FleetError
from llamaforge.spec.ranks import Assignment, Rendezvous, Stop, ToRank
from llamaforge.train.control import Control
from llamaforge.train.group import GroupBroken
from llamaforge.train.rank import MET, _meet

PLACE = Assignment(
    job=make_job(),
    generation=1,
    rank=0,
    world_size=2,
    local_rank=0,
    node="a",
    address="127.0.0.1",
    bundle="/x",
    workdir="/x",
    cache_dir="/x",
)


class Pipe:
    """A control pipe, seen from the worker."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair()
        self.control = Control(theirs)

    def say(self, message: ToRank) -> None:
        self._ours.sendall(msgspec.json.encode(message) + b"\n")

    def close(self) -> None:
        self._ours.close()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_a_rank_waits_for_the_last_one(pipe: Pipe) -> None:
    store = HashStore()
    waiting = threading.Thread(target=_meet, args=(store, PLACE, pipe.control), daemon=True)
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    store.add(MET, 1)
    waiting.join(10)
    assert not waiting.is_alive()


def test_a_rank_that_waits_for_others_can_be_told_to_leave(pipe: Pipe) -> None:
    pipe.say(Stop(reason="stopped by the user"))
    with pytest.raises(FleetError, match="before training began: stopped by the user"):
        _meet(HashStore(), PLACE, pipe.control)


def test_a_store_that_goes_is_a_broken_group(pipe: Pipe) -> None:
    there = TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=5), wait_for_workers=False)
    store = TCPStore("127.0.0.1", there.port, None, False, timedelta(seconds=5))
    del there
    with pytest.raises(GroupBroken, match="rank 0 could not meet the other ranks"):
        _meet(store, PLACE, pipe.control)


def test_the_address_of_the_store_comes_when_it_comes(pipe: Pipe) -> None:
    later = threading.Timer(0.3, pipe.say, (Rendezvous(host="h", port=7),))
    later.start()
    assert pipe.control.rendezvous() == Rendezvous(host="h", port=7)


def test_who_waits_for_the_address_can_be_told_to_leave(pipe: Pipe) -> None:
    pipe.say(Stop(reason="stopped by the user"))
    with pytest.raises(FleetError, match="stopped by the user"):
        pipe.control.rendezvous()


def test_a_worker_that_goes_ends_the_wait(pipe: Pipe) -> None:
    pipe.close()
    with pytest.raises(FleetError, match="the worker is gone"):
        pipe.control.rendezvous()
