"""Which node each rank is on, told once when a generation is formed."""

from __future__ import annotations

import struct

import torch

from llamaforge.train.group import Group

_BYTES = 128


def nodes(group: Group, node: str) -> list[str]:
    """The node name of every rank, by rank; names are cut to 128 bytes."""
    padded = node.encode()[:_BYTES].ljust(_BYTES, b"\0")
    vector = torch.tensor(struct.unpack(f"<{_BYTES // 8}q", padded), dtype=torch.int64)
    return [
        struct.pack(f"<{_BYTES // 8}q", *row).rstrip(b"\0").decode(errors="replace")
        for row in group.gather(vector).tolist()
    ]
