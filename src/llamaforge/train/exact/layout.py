"""All trained tensors as one flat vector, cut into runs that fit a core's cache.

The gradient sum, the update and the digests work on this vector, so that a LoRA job with hundreds
of small tensors and a full job with few large ones take the same path. The cut depends on the
shapes alone and is therefore the same on every rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

_RUN = 1 << 18


@dataclass(frozen=True)
class Run:
    """A piece of the flat vector: part of one large tensor, or several small ones."""

    start: int
    stop: int
    tensors: range
    """Indices of the tensors that it touches."""
    sizes: torch.Tensor | None
    """Elements of each of them, where there is more than one."""

    @property
    def span(self) -> slice:
        """The run as an index into a flat vector."""
        return slice(self.start, self.stop)

    def spread(self, per_tensor: torch.Tensor) -> torch.Tensor:
        """One value per tensor made into one per element (or a single one that broadcasts)."""
        mine = per_tensor[self.tensors.start : self.tensors.stop]
        return mine if self.sizes is None else torch.repeat_interleave(mine, self.sizes)


class Layout:
    """Where each trained tensor stands in the flat vector.

    Args:
        named: name and parameter, in the model's order; each is trained.
    """

    def __init__(self, named: Sequence[tuple[str, torch.nn.Parameter]]) -> None:
        self.names = tuple(name for name, _ in named)
        self.shapes = tuple(tuple(parameter.shape) for _, parameter in named)
        self.sizes = tuple(parameter.numel() for _, parameter in named)
        self.device = named[0][1].device
        starts = [0]
        for size in self.sizes:
            starts.append(starts[-1] + size)
        self.starts = tuple(starts[:-1])
        self.total = starts[-1]
        self.runs = tuple(self._cut())

    def __len__(self) -> int:
        return len(self.names)

    def views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """The flat vector as one view per tensor, each in its own shape."""
        return [
            flat[start : start + size].view(shape)
            for start, size, shape in zip(self.starts, self.sizes, self.shapes, strict=True)
        ]

    def named_views(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """The same by name."""
        return dict(zip(self.names, self.views(flat), strict=True))

    def zeros(self, dtype: torch.dtype) -> torch.Tensor:
        """A flat vector of zeros, `[total]`."""
        return torch.zeros(self.total, dtype=dtype, device=self.device)

    def _cut(self) -> list[Run]:
        runs: list[Run] = []
        first = 0
        while first < len(self):
            last, start = first, self.starts[first]
            if self.sizes[first] >= _RUN:
                end = start + self.sizes[first]
                runs += [
                    Run(at, min(at + _RUN, end), range(first, first + 1), None)
                    for at in range(start, end, _RUN)
                ]
            else:
                while last + 1 < len(self) and self._end(last + 1) - start <= _RUN:
                    last += 1
                sizes = torch.tensor(self.sizes[first : last + 1], device=self.device)
                one = None if last == first else sizes
                runs.append(Run(start, self._end(last), range(first, last + 1), one))
            first = last + 1
        return runs

    def _end(self, tensor: int) -> int:
        return self.starts[tensor] + self.sizes[tensor]
