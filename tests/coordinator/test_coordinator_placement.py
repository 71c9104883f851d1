"""Placement: who runs which ranks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import make_job
from llamaforge.coordinator.placement import MOST_RANKS, Candidate, natural, place
from llamaforge.errors import FleetError


def node(name: str, cores: int = 2, ranks: int | None = None, address: str = "") -> Candidate:
    return Candidate(name=name, cores=cores, ranks=ranks, address=address)


@given(
    cores=st.lists(st.integers(1, 256), min_size=1, max_size=12),
    threads=st.integers(1, 64),
    most=st.none() | st.integers(1, 12),
)
def test_ranks_are_contiguous_and_bounded(cores: list[int], threads: int, most: int | None) -> None:
    job = make_job(threads=threads, nodes=most)
    members = place(job, [node(f"n{i}", cores=c) for i, c in enumerate(cores)])
    assert len(members) == min(len(cores), most or len(cores))
    numbers = [r for m in members for r in range(m.first_rank, m.first_rank + m.count)]
    assert numbers == list(range(len(numbers)))
    assert all(m.count == min(MOST_RANKS, max(1, m.cores // threads)) for m in members)


@given(st.permutations([f"worker-{i}" for i in range(12)]))
def test_the_order_does_not_depend_on_who_came_first(names: list[str]) -> None:
    members = place(make_job(), [node(name) for name in names])
    assert [m.node for m in members] == [f"worker-{i}" for i in range(12)]


def test_what_was_asked_for_wins() -> None:
    told = [node("a", cores=64, ranks=3)]
    assert place(make_job(), told)[0].count == 3
    assert place(make_job(ranks_per_node=12), told)[0].count == 12


def test_loopback_and_other_addresses_do_not_mix() -> None:
    nodes = [node("a", address="127.0.0.1"), node("b", address="10.0.0.2")]
    with pytest.raises(FleetError, match=r"node a is reached at 127\.0\.0\.1") as error:
        place(make_job(), nodes)
    assert "--address" in error.value.hint
    assert len(place(make_job(nodes=1), nodes)) == 1


def test_numbers_in_names_count_as_numbers() -> None:
    assert sorted(["n10", "n2", "m", "2", "n2a"], key=natural) == ["2", "m", "n2", "n2a", "n10"]
