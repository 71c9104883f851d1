"""Ballots travel without losing a bit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llamaforge.train.ballot import Ballot, cast, largest
from llamaforge.train.group import Group

counts = st.integers(0, 2**62)


@given(
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    numbers=st.tuples(counts, counts, counts, counts, counts),
    maxima=st.lists(st.floats(0, width=32, allow_nan=False), max_size=20),
)
def test_what_goes_in_comes_out(
    flags: tuple[bool, bool, bool], numbers: tuple[int, ...], maxima: list[float]
) -> None:
    loss, trained, tokens, nanoseconds, state = numbers
    ballot = Ballot(
        failed=flags[0],
        stop=flags[1],
        kept_all=flags[2],
        loss=loss,
        trained=trained,
        tokens=tokens,
        nanoseconds=nanoseconds,
        state=state,
        maxima=tuple(maxima),
    )
    assert cast(Group.alone(), ballot) == [ballot]


def test_the_largest_of_all_ranks() -> None:
    votes = [Ballot(maxima=(1.0, 0.0)), Ballot(maxima=(0.5, 0.25))]
    assert largest(votes) == [1.0, 0.25]
