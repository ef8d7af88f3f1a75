"""Counts observations in fixed buckets: plain integers, read by an exposition. The sidecar's and the freezer's alike.

Theory of operation. A bucket is named by its inclusive upper bound, and one more counts what is above the last, as
Prometheus and OpenTelemetry want them. An observation is one binary search and two additions; the running totals that
an exposition prints are made when it asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from math import inf
from typing import Final

__all__ = ["THAWS", "Histogram"]

# Seconds. A thaw is tens of microseconds with cgroups, milliseconds through a runtime: 50 us … 1 s (design 6).
THAWS: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Histogram:
    """bounds: ascending upper bounds, inclusive; one more bucket counts what is above."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def __repr__(self) -> str:
        return f"<Histogram count={self.count} sum={self.sum:.6f}>"

    @property
    def count(self) -> int:
        """Observations so far."""
        return sum(self.counts)

    def observe(self, value: float) -> None:
        """value in the unit of the bounds."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """(upper bound, observations at or below it), the last bound being infinity."""
        total = 0
        for bound, count in zip((*self.bounds, inf), self.counts, strict=True):
            total += count
            yield bound, total
