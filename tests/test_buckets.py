"""Fixed buckets, inclusive upper bounds."""

from bisect import bisect_left
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueproxy.buckets import RECENT_MAX, THAWS, Histogram

BOUNDS = (0.0, 1.0, 2.5, 10.0)
VALUES = st.lists(st.sampled_from(BOUNDS) | st.floats(0.0, 20.0, allow_nan=False), max_size=3 * RECENT_MAX)


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


@given(values=VALUES, look_at=st.integers(0, 3 * RECENT_MAX))
def test_however_they_are_folded_the_counts_are_those_of_one_search_each(values: list[float], look_at: int) -> None:
    histogram, naive = Histogram(BOUNDS), [0] * (len(BOUNDS) + 1)
    for number, value in enumerate(values):
        if number == look_at:
            assert histogram.counts == naive
        histogram.observe(value)
        naive[bisect_left(BOUNDS, value)] += 1
    assert len(histogram.recent) < RECENT_MAX, "nothing grows while nobody reads"
    assert (histogram.counts, histogram.sum) == (naive, pytest.approx(sum(values)))
    assert histogram.recent == []


def test_another_ones_observations_are_added_in_another_unit() -> None:
    seconds, milliseconds = Histogram((0.1, 1.0)), Histogram((100.0, 1000.0))
    seconds.observe(0.5)
    milliseconds.observe(50.0)
    milliseconds.merge(seconds, 1000.0)
    assert (milliseconds.counts, milliseconds.sum) == ([1, 1, 0], 550.0)
    assert (seconds.counts, seconds.sum) == ([0, 1, 0], 0.5)
