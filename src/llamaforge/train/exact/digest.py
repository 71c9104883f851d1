"""SHA-256 of tensors: what two runs are compared by."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch


def of_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over name, dtype, shape and bytes of each tensor, in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def of_vector(vector: torch.Tensor) -> bytes:
    """SHA-256 of one flat tensor's bytes, as 32 bytes."""
    flat = vector.detach().cpu().contiguous().view(torch.uint8)
    return hashlib.sha256(flat.numpy().data).digest()
