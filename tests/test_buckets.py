"""Fixed buckets, inclusive upper bounds."""

from math import inf

import pytest

from queueproxy.buckets import THAWS, Histogram


@pytest.mark.parametrize(
    ("value", "buckets"),
    [(0.0, [1, 1, 1, 1]), (1.0, [1, 1, 1, 1]), (1.0000001, [0, 1, 1, 1]), (5.0, [0, 0, 1, 1]), (99.0, [0, 0, 0, 1])],
)
def test_a_value_counts_in_every_bucket_at_or_above_it(value: float, buckets: list[int]) -> None:
    histogram = Histogram((1.0, 2.0, 5.0))
    histogram.observe(value)
    assert [count for _, count in histogram.cumulative()] == buckets
    assert (histogram.count, histogram.sum) == (1, value)


def test_the_last_bound_is_infinite_and_counts_everything() -> None:
    histogram = Histogram((1.0,))
    for value in (0.5, 1.5, 2.5):
        histogram.observe(value)
    assert list(histogram.cumulative()) == [(1.0, 1), (inf, 3)]
    assert repr(histogram) == "<Histogram count=3 sum=4.500000>"


def test_thaws_are_told_apart_from_fifty_microseconds_to_a_second() -> None:
    histogram = Histogram(THAWS)
    for seconds in (0.0, THAWS[0], THAWS[0] * 1.01, 1.0, 1.01, 60.0):
        histogram.observe(seconds)
    found = dict(histogram.cumulative())
    assert (found[50e-6], found[100e-6], found[1.0], found[inf]) == (2, 3, 4, 6)
    assert list(found) == [*THAWS, inf] and list(THAWS) == sorted(THAWS)
