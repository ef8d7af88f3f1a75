"""Counts latencies in buckets no wider than 1/64 of their value.

Theory of operation: whole microseconds below 128 have a bucket each; above, every power of two is cut into 64
buckets, so the bucket of a value is its top seven bits and how far they were shifted. Recording is integer arithmetic
on one list: the load generator shares a core with what it measures. A percentile is the middle of the bucket it falls
in, hence within 1 %. Histograms travel between processes as {bucket: count} and add up.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["BUCKETS", "Histogram", "bucket", "middle"]

_BITS = 7  # 2**7 buckets one microsecond wide, then 2**6 for each power of two
_HALF = 1 << (_BITS - 1)
LONGEST_US = (1 << 30) - 1  # 18 minutes: longer than any run
BUCKETS = ((30 - _BITS) << (_BITS - 1)) + (1 << _BITS)


def bucket(us: int) -> int:
    """The bucket of a latency in whole microseconds."""
    if us < 2 * _HALF:
        return max(us, 0)
    us = min(us, LONGEST_US)
    shift = us.bit_length() - _BITS
    return (shift << (_BITS - 1)) + (us >> shift)


def middle(index: int) -> float:
    """The middle of a bucket, in microseconds."""
    if index < 2 * _HALF:
        return float(index)
    shift = (index >> (_BITS - 1)) - 1
    low = (index - (shift << (_BITS - 1))) << shift
    return low + ((1 << shift) - 1) / 2


class Histogram:
    """Latencies of one run."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        self.total = 0

    def record(self, us: int) -> None:
        self.counts[bucket(us)] += 1
        self.total += 1

    def percentile(self, percent: float) -> float:
        """The latency that `percent` of all requests did not exceed, in microseconds; 0 when nothing was recorded."""
        if not self.total:
            return 0.0
        rank = max(1.0, self.total * percent / 100)
        seen = 0
        for index, count in enumerate(self.counts):
            seen += count
            if seen >= rank:
                return middle(index)
        raise AssertionError("counts and total disagree")

    def add(self, counts: Mapping[str, int]) -> None:
        """Adds what another process wrote with `as_counts`."""
        for index, count in counts.items():
            self.counts[int(index)] += count
            self.total += count

    def as_counts(self) -> dict[str, int]:
        return {str(index): count for index, count in enumerate(self.counts) if count}

    def __repr__(self) -> str:
        return f"<Histogram {self.total} p50={self.percentile(50):.0f}us p99={self.percentile(99):.0f}us>"
