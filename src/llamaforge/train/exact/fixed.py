"""The order-free gradient sum: slice gradients as integers.

Adding floating-point numbers in another order gives other bits; adding integers does not. Each
slice's gradient is rounded to a fixed-point number with one power-of-two scale per tensor, and the
integers are added: within a rank, then across ranks. The sum has the same bits whoever computed
which slice.

Scale. A tensor's scale comes from the largest value that any slice of the last committed step had
in it, with head room 2^8. A tensor that has never had a gradient (LoRA's A while B is zero) has no
scale yet: its slices are kept as they are until the step's maximum is known everywhere, and are
rounded then. A slice value above (2^31 - 1)/slices is an overflow, whoever computed it; the step
is then done again with the scale that its own maximum asks for. A scale never falls to zero: a
step without gradient keeps the old one.
"""

from __future__ import annotations

import math

import torch

from llamaforge.train.exact.layout import Layout

HEAD_ROOM_BITS = 8
_KEEP_BYTES = 1 << 30
"""Most memory for slices that wait for their scale; above it the step is simply done again."""


def exponents(maxima: list[float], slices: int) -> list[int | None]:
    """The scale of each tensor, as the exponent k of 2^k, or None where there is none yet.

    Args:
        maxima: largest absolute slice value of each tensor; 0 where none was seen.
        slices: slices of the step that the scale is for.

    Returns:
        The largest k with max · 2^8 · 2^k ≤ (2^31 - 1)/slices, up to one bit; exact integer
        arithmetic on the float's exponent, the same everywhere.
    """
    top = (limit(slices)).bit_length() - 1
    return [
        None if value == 0 else max(-100, min(100, top - HEAD_ROOM_BITS - math.frexp(value)[1]))
        for value in maxima
    ]


def limit(slices: int) -> int:
    """The largest integer that one slice may hold, so that `slices` of them fit into 31 bits."""
    return ((1 << 31) - 1) // max(1, slices)


def overflows(maxima: list[float], scales: list[int | None], slices: int) -> list[bool]:
    """Which tensors had a slice value that does not fit; decided from maxima alone."""
    return [
        scale is not None and math.ldexp(value, scale) > limit(slices)
        for value, scale in zip(maxima, scales, strict=True)
    ]


class SliceSum:
    """The integer sum of the slices that one rank computes in one step.

    Args:
        layout: the trained tensors.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.total = layout.zeros(torch.int32)
        self.maxima = [0.0] * len(layout)
        """Largest absolute value seen in any slice added so far, per tensor."""
        self.kept_all = True
        """False when slices without a scale took too much memory: the step must be redone."""
        self._scales: list[int | None] = []
        self._factors = torch.empty(0)
        self._slices = 1
        self._waiting: list[dict[int, torch.Tensor]] = []
        self._waiting_bytes = 0
        self._overflowed = False

    def begin(self, scales: list[int | None], slices: int) -> None:
        """Starts a step of `slices` slices (over all ranks) with the given scales."""
        self.total.zero_()
        self.maxima = [0.0] * len(self._layout)
        self.kept_all, self._overflowed = True, False
        self._slices = slices
        self._waiting, self._waiting_bytes = [], 0
        self._set(scales)

    def add(self, gradient: torch.Tensor, maxima: list[float]) -> None:
        """Adds one slice's gradient.

        Args:
            gradient: flat, `[total]`, in the precision of the pass; finite.
            maxima: largest absolute value of each of its tensors.
        """
        self.maxima = [max(old, new) for old, new in zip(self.maxima, maxima, strict=True)]
        self._overflowed |= any(overflows(maxima, self._scales, self._slices))
        if self._overflowed or not self.kept_all:
            return
        self._keep(gradient, maxima)
        self._round_into_total(gradient)

    def settle(self, scales: list[int | None]) -> None:
        """Rounds the slices that waited, now that every tensor's scale is known everywhere."""
        self._set(scales)
        for kept in self._waiting:
            for tensor, values in kept.items():
                scale = scales[tensor]
                assert scale is not None, "a tensor with a gradient got no scale"
                start = self._layout.starts[tensor]
                into = self.total[start : start + values.numel()]
                into += torch.round(values.float() * math.ldexp(1.0, scale)).to(torch.int32)
        self._waiting, self._waiting_bytes = [], 0

    def _set(self, scales: list[int | None]) -> None:
        self._scales = list(scales)
        values = [0.0 if scale is None else math.ldexp(1.0, scale) for scale in scales]
        self._factors = torch.tensor(values, dtype=torch.float32, device=self._layout.device)

    def _keep(self, gradient: torch.Tensor, maxima: list[float]) -> None:
        layout = self._layout
        unscaled = [t for t, scale in enumerate(self._scales) if scale is None and maxima[t] > 0]
        need = sum(layout.sizes[t] for t in unscaled) * gradient.element_size()
        if self._waiting_bytes + need > _KEEP_BYTES:
            self.kept_all = False
            self._waiting, self._waiting_bytes = [], 0
        elif unscaled:
            self._waiting.append(
                {
                    t: gradient[layout.starts[t] : layout.starts[t] + layout.sizes[t]].clone()
                    for t in unscaled
                }
            )
            self._waiting_bytes += need

    def _round_into_total(self, gradient: torch.Tensor) -> None:
        for run in self._layout.runs:
            scaled = gradient[run.span].float() * run.spread(self._factors)
            self.total[run.span] += scaled.round_().to(torch.int32)


def squared_norm(total: torch.Tensor, layout: Layout, scales: list[int | None]) -> float:
    """The squared norm of the summed gradient (not divided by tokens), from the integers.

    Squares are rounded to integers of a common scale within each tensor and added as such, so the
    result does not depend on how a machine orders a sum; tensors are added in the layout's order.

    Args:
        total: the integer sum over all slices, int32 `[layout.total]`.
        layout: the trained tensors.
        scales: each tensor's exponent.
    """
    result = 0.0
    for tensor, scale in enumerate(scales):
        if scale is None:
            continue
        start = layout.starts[tensor]
        values = total[start : start + layout.sizes[tensor]]
        result += math.ldexp(_sum_of_squares(values), -2 * scale)
    return result


def _sum_of_squares(values: torch.Tensor) -> float:
    pieces = values.split(1 << 18)
    ends = [torch.aminmax(piece) for piece in pieces]
    largest = max(max(int(highest), -int(lowest)) for lowest, highest in ends)
    if largest == 0:
        return 0.0
    shift = 62 - 2 * largest.bit_length() - values.numel().bit_length()
    total = 0
    for piece in pieces:
        wide = piece.double()
        total += int(wide.mul_(wide).mul_(math.ldexp(1.0, shift)).round_().to(torch.int64).sum())
    return math.ldexp(float(total), -shift)
