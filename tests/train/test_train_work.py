"""What there is to do: every row of a step in one slice, and a canary that no generation moves."""

from __future__ import annotations

import numpy as np

from jobs import make_job
from llamaforge.train.rows.tokens import Tokens
from llamaforge.train.work import Planner, slices_of

UNTRAINED = frozenset({0, 1, 2, 3, 5})


class Fake(dict[int, Tokens]):
    """A feed of ten rows, of which half have nothing to train."""

    def __init__(self) -> None:
        for row in range(10):
            trained = np.full(row + 4, row not in UNTRAINED)
            self[row] = Tokens(ids=np.arange(row + 4, dtype=np.int32), trained=trained)


def test_rows_without_a_trained_token_are_of_the_step_but_in_no_slice() -> None:
    planner = Planner(make_job(rows=10, rows_per_step=4), Fake())  # type: ignore[arg-type]
    works = [planner.step(step) for step in range(3)]
    assert sorted(row for work in works for row in work.rows) == list(range(10))
    packed = [row for work in works for piece in work.slices for row in piece.rows]
    assert sorted(packed) == sorted(set(range(10)) - UNTRAINED)
    assert [piece.index for piece in works[0].slices] == list(range(len(works[0].slices)))


def test_the_canary_is_the_first_slice_of_the_job() -> None:
    planner = Planner(make_job(rows=10, rows_per_step=1), Fake())  # type: ignore[arg-type]
    first = next(w.slices[0] for w in map(planner.step, range(10)) if w.slices)
    (canary,) = planner.canary()
    assert len(canary.ids) == first.tokens


def test_nothing_to_train_has_no_canary() -> None:
    feed = Fake()
    job = make_job(rows=len(UNTRAINED - {5}), rows_per_step=2)
    assert Planner(job, feed).canary() == []  # type: ignore[arg-type]


def test_what_is_to_come_begins_where_training_stands() -> None:
    job = make_job(rows=10, rows_per_step=4, epochs=2)
    planner = Planner(job, Fake())  # type: ignore[arg-type]
    coming = list(planner.upcoming(4))
    assert coming == [row for step in (4, 5) for row in planner.step(step).rows]


def test_slices_say_their_tokens() -> None:
    (one,) = slices_of([7, 8, 9], [3, 0, 4], 10)
    assert (one.rows, one.tokens) == ((7, 9), 7)
