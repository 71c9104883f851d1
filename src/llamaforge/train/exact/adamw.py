"""AdamW (Loshchilov and Hutter, arXiv:1711.05101), specified to the bit.

Each element goes through the same IEEE 754 single-precision additions, multiplications, divisions
and square roots in the same order on every machine: no fused multiply-add, no library power
function, no reduction. The learning rate and 1 - βᵗ are doubles, rounded once to single precision
where they meet a tensor. PyTorch's own foreach and fused variants differ from each other in the
last bits, which is why none of them is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from llamaforge.spec.job import JobSpec
from llamaforge.train.exact.layout import Layout


@dataclass
class Moments:
    """The optimizer's state."""

    first: torch.Tensor
    """Moving mean of the gradient, fp32 `[total]`."""
    second: torch.Tensor
    """Moving mean of its square, fp32 `[total]`."""
    beta1_power: float = 1.0
    """β₁ᵗ after t steps, by repeated multiplication."""
    beta2_power: float = 1.0


class AdamW:
    """The update of all trained tensors.

    Args:
        layout: the trained tensors.
        master: their values in fp32, flat `[total]`; updated in place.
        spec: β₁, β₂, ε and the weight decay.
    """

    def __init__(self, layout: Layout, master: torch.Tensor, spec: JobSpec) -> None:
        self._layout = layout
        self._spec = spec
        self.master = master
        self.moments = Moments(layout.zeros(torch.float32), layout.zeros(torch.float32))

    def step(
        self, total: torch.Tensor, scales: list[int | None], *, divisor: float, rate: float
    ) -> None:
        """Commits one step.

        Args:
            total: the integer gradient sum, int32 `[total]`.
            scales: each tensor's exponent k; the sum is `total`·2⁻ᵏ.
            divisor: what the sum is divided by: trained tokens over the clipping factor.
            rate: this step's learning rate.
        """
        spec, moments = self._spec, self.moments
        moments.beta1_power *= spec.adam_beta1
        moments.beta2_power *= spec.adam_beta2
        step_size = rate / (1.0 - moments.beta1_power)
        root = 1.0 / math.sqrt(1.0 - moments.beta2_power)
        factors = torch.tensor(
            [0.0 if scale is None else math.ldexp(1.0 / divisor, -scale) for scale in scales],
            dtype=torch.float32,
            device=total.device,
        )
        for run in self._layout.runs:
            span = run.span
            gradient = total[span].float().mul_(run.spread(factors))
            first, second, weights = moments.first[span], moments.second[span], self.master[span]
            first.mul_(spec.adam_beta1).add_(gradient * (1.0 - spec.adam_beta1))
            second.mul_(spec.adam_beta2).add_(gradient.mul_(gradient).mul_(1.0 - spec.adam_beta2))
            denominator = _sqrt(second).mul_(root).add_(spec.adam_eps)
            weights.mul_(1.0 - rate * spec.weight_decay)
            weights.sub_((first * step_size).div_(denominator))


def _sqrt(values: torch.Tensor) -> torch.Tensor:
    """The square root, correctly rounded to single precision.

    PyTorch's own fp32 root on a CPU is a vector library's, off by one bit in a sixth of the values.
    A root in double precision, even one that is wrong in its last bit, rounds to the right single:
    no square root of a 24-bit number lies that close to the middle of two of them.
    """
    return values.double().sqrt_().float()


def clipping(norm: float, limit: float) -> float:
    """The factor that brings a gradient of this norm down to `limit`; 1 where it is below."""
    return limit / norm if 0 < limit < norm else 1.0
