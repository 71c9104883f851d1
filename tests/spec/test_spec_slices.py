"""Steps and slices: all rows of a step in its slices, within the budget, from the job alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobs import make_job
from llamaforge.spec.slices import LEAST_TOKENS, Order, budget, pack


@given(st.lists(st.integers(0, 700), max_size=60), st.integers(8, 600))
def test_every_row_with_tokens_is_in_one_slice(lengths: list[int], budget: int) -> None:
    slices = pack(lengths, budget)
    packed = sorted(position for members in slices for position in members)
    assert packed == [i for i, length in enumerate(lengths) if length > 0]


@given(st.lists(st.integers(1, 700), max_size=60), st.integers(8, 600))
def test_slices_keep_to_the_budget_unless_one_row_is_longer(
    lengths: list[int], budget: int
) -> None:
    for members in pack(lengths, budget):
        total = sum(lengths[i] for i in members)
        assert total <= budget or len(members) == 1


@given(st.lists(st.integers(1, 100), min_size=1, max_size=60), st.integers(100, 600))
def test_packing_is_tight(lengths: list[int], budget: int) -> None:
    lower_bound = -(-sum(lengths) // budget)
    assert len(pack(lengths, budget)) <= lower_bound * 11 / 9 * 1.25 + 2


@given(rows=st.integers(1, 400), per_step=st.integers(1, 50), epochs=st.integers(1, 3))
def test_every_row_once_per_epoch(rows: int, per_step: int, epochs: int) -> None:
    job = make_job(rows=rows, rows_per_step=per_step, epochs=epochs)
    order = Order(job)
    seen: dict[int, list[int]] = {epoch: [] for epoch in range(epochs)}
    for step in range(job.total_steps):
        work = order.step(step)
        seen[work.epoch] += work.rows
    assert all(sorted(of_epoch) == list(range(rows)) for of_epoch in seen.values())


@given(st.permutations(range(12)))
def test_steps_can_be_asked_for_in_any_order(steps: list[int]) -> None:
    job = make_job(rows=31, rows_per_step=8, epochs=3)
    straight = [Order(job).step(step) for step in range(12)]
    order = Order(job)
    assert all(order.step(step) == straight[step] for step in steps)


@given(st.lists(st.integers(0, 700), max_size=60), st.integers(1, 40), st.integers(8, 4000))
def test_a_budget_stays_between_its_bounds(lengths: list[int], slices: int, most: int) -> None:
    room = budget(lengths, slices=slices, most=most)
    assert min(most, LEAST_TOKENS) <= room <= most


def test_a_step_is_cut_into_about_as_many_slices_as_asked_for() -> None:
    lengths = [170] * 32
    room = budget(lengths, slices=8, most=2048)
    assert len(pack(lengths, room)) == 8
