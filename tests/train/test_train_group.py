"""Process groups: sums are out of place, deaths are noticed, groups can follow each other."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch
from torch.distributed import PrefixStore, TCPStore

from llamaforge.train.group import Group, GroupBroken, in_short

RANKS = 3


def member(rank: int, port: int, pipe: Connection) -> None:
    """Two groups on one store; in the second, the last rank dies before the sum."""
    store = TCPStore("127.0.0.1", port, None, is_master=False)

    def form(prefix: str) -> Group:
        where = PrefixStore(prefix, store)
        return Group.form(where, rank=rank, world_size=RANKS, address="127.0.0.1")

    local = torch.arange(5, dtype=torch.int32) + rank
    out = torch.empty_like(local)
    first = form("generation-1")
    first.sum_into(out, local)
    pipe.send((out.tolist(), local.tolist(), first.gather(local.long()).tolist()))
    second = form("generation-2")
    second.barrier()
    if rank == RANKS - 1:
        os._exit(1)
    try:
        second.sum_into(out, local)
        pipe.send("no error")
    except GroupBroken as error:
        pipe.send((type(error).__name__, local.tolist()))


@pytest.fixture
def pipes() -> Any:
    store = TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
    context = multiprocessing.get_context("spawn")
    ends, processes = [], []
    for rank in range(RANKS):
        ours, theirs = context.Pipe()
        process = context.Process(target=member, args=(rank, store.port, theirs))
        process.start()
        theirs.close()
        ends.append(ours)
        processes.append(process)
    yield ends
    for process in processes:
        process.kill()
        process.join()


def test_sums_gathers_and_a_death(pipes: list[Connection]) -> None:
    for rank, pipe in enumerate(pipes):
        total, local, everybody = pipe.recv()
        assert total == [3, 6, 9, 12, 15]
        assert local == [i + rank for i in range(5)], "the input is left whole"
        assert everybody == [[i + r for i in range(5)] for r in range(RANKS)]
    for rank, pipe in enumerate(pipes[:-1]):
        kind, local = pipe.recv()
        assert kind == "GroupBroken"
        assert local == [i + rank for i in range(5)], "and stays whole when a peer dies"


def test_a_group_of_one_needs_no_sockets() -> None:
    group = Group.alone()
    local = torch.tensor([1, 2], dtype=torch.int32)
    out = torch.empty_like(local)
    group.sum_into(out, local)
    assert out.tolist() == [1, 2]
    assert group.gather(torch.tensor([7])).tolist() == [[7]]


@pytest.mark.parametrize(
    ("said", "short"),
    [
        (
            "[/a/gloo/transport/tcp/pair.cc:537] Read error [10.0.0.3]:61064: Connection reset by "
            "peer. This is typically caused by a remote worker hanging. GLHF!\nmore",
            "Read error [10.0.0.3]:61064: Connection reset by peer",
        ),
        ("Timed out waiting 600000ms for recv", "Timed out waiting 600000ms for recv"),
        ("", ""),
    ],
)
def test_gloos_words_without_its_advice(said: str, short: str) -> None:
    assert in_short(said) == short
