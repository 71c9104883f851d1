"""Versions that must agree, and what the nodes settle together."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import pytest
from torch.distributed import HashStore

from llamaforge.errors import UserError
from llamaforge.train.classic.exchange import Exchange, Refused
from llamaforge.train.classic.launch import Launch
from llamaforge.train.classic.team import (
    COMPARED,
    Hello,
    Team,
    compare,
    gather,
    own_versions,
    settle,
)


def word(node: int = 0, **changes: Any) -> Hello:
    first = Hello(
        node_name=f"node{node}",
        node=node,
        nodes=2,
        local_ranks=1,
        cores=4,
        address="127.0.0.1",
        versions={"Python": "3.11", "torch": "2.13.0", "LlamaForge": "0.1.0"},
    )
    return msgspec.structs.replace(first, **changes)


def test_the_versions_that_are_compared_are_the_versions_that_are_told() -> None:
    assert set(own_versions()) == set(COMPARED)


def test_equal_versions_may_train_together() -> None:
    compare([word(0), word(1)])


@pytest.mark.parametrize("what", COMPARED)
def test_another_version_is_refused_with_both_named(what: str) -> None:
    other = word(1, versions={**word().versions, what: "9.9"})
    with pytest.raises(UserError) as seen:
        compare([word(0), other])
    assert f"node0 runs {what} {word().versions[what]}" in seen.value.message
    assert f"node1 runs {what} 9.9" in seen.value.message
    assert seen.value.exit_code == 2


def test_another_number_of_nodes_is_refused_with_the_setting_to_change() -> None:
    with pytest.raises(UserError, match="2 nodes on node0, but with 3 on node1") as seen:
        compare([word(0), word(1, nodes=3)])
    assert "WORLD_SIZE=2" in seen.value.hint


def test_threads_are_what_the_smallest_node_has_for_each_rank() -> None:
    hellos = [word(0, cores=8, local_ranks=2)] * 2 + [word(1, cores=3, local_ranks=1)]
    team = settle(hellos, {})
    assert team.threads == 3
    assert team.local_ranks == [2, 1]


def test_more_ranks_than_cores_get_one_thread() -> None:
    assert settle([word(0, cores=1, local_ranks=2)] * 2, {}).threads == 1


def test_machines_of_the_same_name_are_told_apart() -> None:
    assert settle([word(0, node_name="pi"), word(1, node_name="pi")], {}).names == ["pi-0", "pi-1"]


def together(words: list[Hello]) -> list[Team | Exception]:
    """Lets every process of a job gather, each in a thread."""
    store, ends = HashStore(), [None] * len(words)

    def one(rank: int) -> None:
        launch = Launch(rank=rank, world_size=len(words), node=rank, nodes=len(words))
        exchange = Exchange(store, launch)
        try:
            ends[rank] = gather(exchange, words[rank], {})
        except (UserError, Refused) as error:
            exchange.refuse(error)
            ends[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(len(words))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return ends


def test_all_processes_get_the_same_team() -> None:
    first, second = together([word(0), word(1)])
    assert isinstance(first, Team)
    assert first == second


def test_all_processes_hear_which_versions_differ() -> None:
    first, second = together([word(0), word(1, versions={**word().versions, "torch": "2.6.0"})])
    assert isinstance(second, Refused)
    assert "torch 2.13.0" in second.message
    assert "torch 2.6.0" in second.message
    assert (first.exit_code, second.exit_code) == (2, 2)


def test_the_most_patient_node_decides_for_all() -> None:
    """One setting on one machine is enough: the first to give up ends the attempt for everybody."""
    words = [
        msgspec.structs.replace(word(node=0), network_timeout=600.0),
        msgspec.structs.replace(word(node=1), network_timeout=3600.0),
    ]
    assert settle(words, {}).network_timeout == 3600.0
