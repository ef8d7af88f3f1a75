"""Counts observations in fixed buckets: plain integers, read by an exposition. The sidecar's and the freezer's alike.

Theory of operation. A bucket is named by its inclusive upper bound, and one more counts what is above the last, as
Prometheus and OpenTelemetry want them. An observation is only appended to a list; 128 of them, or a reader, fold the
list into the buckets: sorted, it needs one search for each bound instead of one for each observation (1,000
instructions less for each, of 100,000 that a request costs). The running totals that an exposition prints are made
when it asks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from math import inf
from typing import Final

__all__ = ["RECENT_MAX", "THAWS", "Histogram"]

# Seconds. A thaw is tens of microseconds with cgroups, milliseconds through a runtime: 50 us … 1 s (design 6).
THAWS: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


RECENT_MAX: Final = 128  # observations not folded yet; folding takes some 30 us


class Histogram:
    """bounds: ascending upper bounds, inclusive; one more bucket counts what is above.

    recent: observations not yet counted. The hot path appends to it itself, and calls `fold` when there are RECENT_MAX.
    """

    __slots__ = ("_counts", "_sum", "bounds", "recent")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.recent: list[float] = []
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def __repr__(self) -> str:
        return f"<Histogram count={self.count} sum={self.sum:.6f}>"

    @property
    def counts(self) -> list[int]:
        """Observations so far, by bucket."""
        self.fold()
        return self._counts

    @property
    def sum(self) -> float:
        """Of all observations, in the unit of the bounds."""
        self.fold()
        return self._sum

    @property
    def count(self) -> int:
        """Observations so far."""
        return sum(self.counts)

    def observe(self, value: float) -> None:
        """value in the unit of the bounds."""
        self.recent.append(value)
        if len(self.recent) >= RECENT_MAX:
            self.fold()

    def fold(self) -> None:
        """Counts what is recent."""
        if self.recent:
            self.add(self.recent)
            self.recent.clear()

    def add(self, values: Iterable[float]) -> None:
        """Counts all of them."""
        ascending = sorted(values)
        counts = self._counts
        below = 0
        for bucket, bound in enumerate(self.bounds):
            if below == len(ascending):
                break
            up_to = bisect_right(ascending, bound, below)
            counts[bucket] += up_to - below
            below = up_to
        counts[-1] += len(ascending) - below
        self._sum += sum(ascending)

    def merge(self, other: Histogram, scale: float = 1.0) -> None:
        """Adds another one's observations, whose bounds times `scale` are ours."""
        self._counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self._sum += other.sum * scale

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """(upper bound, observations at or below it), the last bound being infinity."""
        total = 0
        for bound, count in zip((*self.bounds, inf), self.counts, strict=True):
            total += count
            yield bound, total
