"""Attention inside each row of a slice, through transformers' own attention interface.

A slice is several rows laid end to end. Instead of a mask over the whole slice, each row calls
PyTorch's scaled dot product attention on its own tokens: no row sees another one, no work is
spent between rows, and a row's bits don't depend on its neighbours. Any model that transformers
lets choose its attention function works.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "llamaforge_rows"
"""What a model's `attn_implementation` is called when it uses this function."""

_rows: tuple[int, ...] | None = None
_UNSUPPORTED = ("softcap", "s_aux", "position_bias", "head_mask")


@contextmanager
def row_lengths(lengths: Sequence[int]) -> Iterator[None]:
    """Says how the tokens of the current forward and backward pass fall into rows.

    Args:
        lengths: tokens of each row, in order; they add up to the tokens of the slice.
    """
    global _rows  # noqa: PLW0603 - transformers gives an attention function no other way in
    before, _rows = _rows, tuple(lengths)
    try:
        yield
    finally:
        _rows = before


def attend(
    module: torch.nn.Module,  # noqa: ARG001 - the interface's signature
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **extra: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row.

    Args:
        module: the attention layer; not used.
        query: `[1, heads, tokens, head_dim]`.
        key: `[1, kv_heads, tokens, head_dim]`; heads is a multiple of kv_heads.
        value: as `key`.
        attention_mask: used only when no rows are set (generation).
        scaling: factor on the scores; 1/sqrt(head_dim) by default.
        dropout: probability on the attention weights.
        sliding_window: tokens that a query sees, itself included; None for all before it.
        extra: what else a model hands over; kinds that would change the result are refused.

    Returns:
        `[1, tokens, heads, head_dim]` and no attention weights.

    Raises:
        NotImplementedError: the model wants a kind of attention that this function doesn't have.
    """
    wanted = [name for name in _UNSUPPORTED if extra.get(name) is not None]
    if wanted:
        raise NotImplementedError(f"attention with {', '.join(wanted)}")
    options = {"scale": scaling, "dropout_p": dropout, "enable_gqa": query.shape[1] != key.shape[1]}
    if _rows is None:
        return _plain(query, key, value, attention_mask, sliding_window, options), None
    pieces = [
        _one_row(q, k, v, sliding_window, options)
        for q, k, v in zip(*(t.split(_rows, dim=2) for t in (query, key, value)), strict=True)
    ]
    return torch.cat(pieces, dim=2).transpose(1, 2), None


def _one_row(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    window: int | None,
    options: dict[str, Any],
) -> torch.Tensor:
    if window is not None and query.shape[2] > window:
        mask = _banded(query.shape[2], key.shape[2], window, query.device)
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, **options)
    return scaled_dot_product_attention(query, key, value, is_causal=True, **options)


def _plain(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    window: int | None,
    options: dict[str, Any],
) -> torch.Tensor:
    """Generation with a cache: the queries are the last tokens of one row."""
    queries, keys = query.shape[2], key.shape[2]
    if mask is None and (queries > 1 or window is not None):
        mask = _banded(queries, keys, window or keys, query.device)
    result = scaled_dot_product_attention(query, key, value, attn_mask=mask, **options)
    return result.transpose(1, 2)


def _banded(queries: int, keys: int, window: int, device: torch.device) -> torch.Tensor:
    """`[queries, keys]`, true where a query may look: at itself and `window` - 1 tokens before."""
    where = torch.arange(keys, device=device)
    ahead = (where[-queries:, None]) - where[None, :]
    return (ahead >= 0) & (ahead < window)


AttentionInterface.register(NAME, attend)
