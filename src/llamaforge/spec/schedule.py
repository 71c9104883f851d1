"""The learning rate of every step, equal to the last bit on every machine.

`math.cos` may differ between C libraries in its last bit, and one bit in a learning rate changes
every weight. The cosine here uses only additions and multiplications of doubles, which IEEE 754
rounds in one way only.
"""

from __future__ import annotations

from fractions import Fraction

from llamaforge.spec.job import Schedule

_HALF_PI = 1.5707963267948966
_TERMS = 12


def learning_rate(step: int, *, total: int, peak: float, kind: Schedule, warmup: float) -> float:
    """The learning rate that step `step` (counted from 0) is committed with.

    Args:
        step: 0 to `total` - 1.
        total: steps of the whole job.
        peak: the rate at the end of the warm-up.
        kind: how the rate falls after the warm-up; to 0 for cosine and linear.
        warmup: share of the steps that warm up, in [0, 1).

    Returns:
        The rate: linear from peak/W to peak over the W = round(warmup·total) first steps, then
        peak·(1 + cos(πx))/2 (Loshchilov and Hutter, arXiv:1608.03983) or peak·(1 - x), where x
        goes from 0 towards 1 over the rest.
    """
    warm = round(warmup * total)
    if step < warm:
        return peak * (step + 1) / warm
    if kind == "constant":
        return peak
    done = (step - warm) / max(1, total - warm)
    if kind == "linear":
        return peak * (1.0 - done)
    return peak * 0.5 * (1.0 + _cos_pi(done))


def _cos_pi(x: float) -> float:
    """cos(πx) for x in [0, 1], within 1e-15, from IEEE additions and multiplications alone."""
    return -_cosine(1.0 - x) if x > 0.5 else _cosine(x)


def _cosine(x: float) -> float:
    """cos(πx) for x in [0, 0.5] by its Taylor series, summed from the smallest term."""
    angle = 2.0 * x * _HALF_PI
    square = angle * angle
    total = 0.0
    for coefficient in _COEFFICIENTS:
        total = total * square + coefficient
    return total


def _taylor() -> tuple[float, ...]:
    """Coefficients (-1)^k / (2k)! of the cosine, highest first, correctly rounded."""
    value, coefficients = Fraction(1), [1.0]
    for k in range(1, _TERMS):
        value /= -(2 * k) * (2 * k - 1)
        coefficients.append(float(value))
    return tuple(reversed(coefficients))


_COEFFICIENTS = _taylor()
