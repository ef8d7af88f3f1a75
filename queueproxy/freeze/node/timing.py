"""Counts durations in fixed buckets: plain integers, read by the exposition.

The rooms do not know each other, so this is not the sidecar's histogram; its buckets are one set, chosen for cgroups
(a thaw is tens of microseconds) and for what may go wrong with them (design 6: 50 us to 1 s).
"""

from bisect import bisect_left
from collections.abc import Iterator
from math import inf
from typing import Final

__all__ = ["Timing"]

BOUNDS: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Timing:
    """Seconds of one kind of thing."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def __repr__(self) -> str:
        return f"<Timing {sum(self.counts)} in {self.sum:.6f} s>"

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """(upper bound, how many at or below it), the last bound being infinity."""
        total = 0
        for bound, count in zip((*BOUNDS, inf), self.counts, strict=True):
            total += count
            yield bound, total
