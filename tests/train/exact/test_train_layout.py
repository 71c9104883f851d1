"""The flat vector: every element in one run, with its own tensor's value."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llamaforge.train.exact import layout as room
from llamaforge.train.exact.layout import Layout


@settings(max_examples=40)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.integers(4, 60))
def test_runs_cover_everything_once(sizes: list[int], longest: int) -> None:
    room._RUN, before = longest, room._RUN
    try:
        layout = Layout(
            [(f"t{i}", torch.nn.Parameter(torch.zeros(n))) for i, n in enumerate(sizes)]
        )
    finally:
        room._RUN = before
    values = torch.arange(1.0, len(sizes) + 1)
    spread = torch.cat(
        [layout.runs[i].spread(values).expand(r.stop - r.start) for i, r in enumerate(layout.runs)]
    )
    assert torch.equal(spread, torch.repeat_interleave(values, torch.tensor(sizes)))
    assert all(run.stop - run.start <= longest for run in layout.runs)


def test_views_are_the_vector_itself() -> None:
    layout = Layout(
        [("a", torch.nn.Parameter(torch.zeros(2, 3))), ("b", torch.nn.Parameter(torch.zeros(4)))]
    )
    flat = layout.zeros(torch.float32)
    layout.named_views(flat)["b"][1] = 5.0
    assert flat.tolist() == [0, 0, 0, 0, 0, 0, 0, 5, 0, 0]
