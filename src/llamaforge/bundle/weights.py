"""The headers of safetensors files: names, shapes and sizes of a model's weights, without torch.

A header also promises the file's length, so half a download is noticed before any job starts.
Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from llamaforge.errors import ModelError

_LONGEST = 100_000_000
"""Bytes of a header at most; safetensors refuses longer ones too."""


class Tensor(msgspec.Struct, frozen=True):
    """One weight as its header describes it."""

    dtype: str
    """`BF16`, `F32`, `F16`, …"""
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]
    """First and last byte, counted from the end of the header."""

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def tensors(path: Path) -> dict[str, Tensor]:
    """Reads the header of a safetensors file.

    Raises:
        ModelError: it is cut short, a Git LFS pointer, or something else entirely.
    """
    with path.open("rb") as file:
        start = file.read(8)
        if start == b"version ":
            raise ModelError(
                f"{path} is a Git LFS pointer, not the weights",
                hint=f"git -C {path.parent} lfs pull",
            )
        length = int.from_bytes(start, "little")
        header = file.read(length) if length <= _LONGEST else b""
    size = path.stat().st_size
    if len(start) < 8 or len(header) < length:
        raise _damaged(path, f"{size} bytes don't hold a whole header")
    try:
        raw: dict[str, msgspec.Raw] = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        raw.pop("__metadata__", None)
        found = {name: msgspec.json.decode(text, type=Tensor) for name, text in raw.items()}
    except msgspec.MsgspecError as error:
        raise _damaged(path, f"its header is not safetensors: {error}") from error
    promised = 8 + length + max((tensor.data_offsets[1] for tensor in found.values()), default=0)
    if size != promised:
        raise _damaged(path, f"it has {size:,} bytes, its header promises {promised:,}")
    return found


def _damaged(path: Path, why: str) -> ModelError:
    return ModelError(f"{path} is damaged: {why}", hint="copy or download the file again")
