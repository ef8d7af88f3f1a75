"""Counts observations in fixed buckets: plain integers, read by the exposition."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

# Seconds. OpenTelemetry's HTTP durations, which Knative uses for invocations (contract 5.4, table D).
DURATIONS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
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
        """(upper bound, observations at or below it), as Prometheus wants them; the last bound is +Inf."""
        total = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            total += count
            yield bound, total
