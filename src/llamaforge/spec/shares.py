"""Who computes which slices. Any answer gives the same result; a good one wastes no time."""

from __future__ import annotations

from collections.abc import Sequence


def assign(costs: Sequence[int], speeds: Sequence[float]) -> list[tuple[int, ...]]:
    """Shares slices among ranks so that all finish at about the same time.

    Longest processing time first (Graham, 1969) on machines of different speed: every slice goes
    to the rank that would finish it soonest.

    Args:
        costs: tokens of each slice.
        speeds: tokens per second of each rank, all above 0.

    Returns:
        For each rank the slices that it computes, ascending. Equal inputs give equal answers on
        every machine, so that ranks can plan without asking anybody.
    """
    if not speeds or min(speeds) <= 0:
        raise ValueError(f"every rank needs a speed above 0, not {list(speeds)}")
    shares: list[list[int]] = [[] for _ in speeds]
    load = [0] * len(speeds)
    for index in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        rank = min(range(len(speeds)), key=lambda r: ((load[r] + costs[index]) / speeds[r], r))
        shares[rank].append(index)
        load[rank] += costs[index]
    return [tuple(sorted(share)) for share in shares]


class Speeds:
    """Smoothed tokens per second of every rank, from what each one measured while computing.

    Waiting is not counted, so that a rank that waits for another does not look slow. All ranks
    feed the same gathered numbers in the same order and therefore hold the same speeds.
    """

    def __init__(self, ranks: int, *, keep: float = 0.7) -> None:
        """Starts with equal speeds; `keep` is the weight of the past in each update."""
        self._keep = keep
        self._speeds: list[float | None] = [None] * ranks

    def update(self, tokens: Sequence[int], nanoseconds: Sequence[int]) -> None:
        """Adds one step's measurement; a rank that computed nothing keeps its old speed."""
        for rank, (count, time) in enumerate(zip(tokens, nanoseconds, strict=True)):
            if count > 0 and time > 0:
                now = count * 1e9 / time
                old = self._speeds[rank]
                mixed = now if old is None else self._keep * old + (1 - self._keep) * now
                self._speeds[rank] = mixed

    def __call__(self) -> list[float]:
        """Speeds for planning; a rank not measured yet counts as an average one."""
        known = [speed for speed in self._speeds if speed is not None]
        typical = sum(known) / len(known) if known else 1.0
        return [typical if speed is None else speed for speed in self._speeds]
