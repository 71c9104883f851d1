"""Attention per row: what a block-diagonal causal mask over the slice would give."""

from __future__ import annotations

import pytest
import torch

from llamaforge.train.attention import attend, row_lengths

LENGTHS = (5, 1, 9)


def reference(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int | None
) -> torch.Tensor:
    """Softmax attention with an explicit mask, in plain operations."""
    row = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    where = torch.arange(sum(LENGTHS))
    behind = where[:, None] - where[None, :]
    seen = (row[:, None] == row[None, :]) & (behind >= 0) & (behind < (window or 10**6))
    repeat = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
    scores = (q @ k.transpose(-1, -2) * 0.3).masked_fill(~seen, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_rows_see_only_themselves(kv_heads: int, window: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, h, 15, 8, generator=generator) for h in (4, kv_heads, kv_heads))
    with row_lengths(LENGTHS):
        got, _ = attend(torch.nn.Identity(), q, k, v, None, scaling=0.3, sliding_window=window)
    torch.testing.assert_close(got, reference(q, k, v, window))


@pytest.mark.parametrize("window", [None, 3])
def test_generation_with_a_cache_looks_back(window: int | None) -> None:
    """The last two queries against all keys: as the last rows of the whole computation."""
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 2, 7, 8, generator=generator) for _ in range(3))
    whole, _ = attend(torch.nn.Identity(), q, k, v, None, sliding_window=window)
    tail, _ = attend(torch.nn.Identity(), q[:, :, -2:], k, v, None, sliding_window=window)
    torch.testing.assert_close(tail, whole[:, -2:])


def test_a_kind_that_would_be_wrong_is_refused() -> None:
    x = torch.zeros(1, 1, 2, 4)
    with pytest.raises(NotImplementedError, match="softcap"):
        attend(torch.nn.Identity(), x, x, x, None, softcap=30.0)
