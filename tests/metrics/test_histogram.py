"""Fixed buckets, inclusive upper bounds."""

import pytest

from queueproxy.metrics.histogram import DURATIONS, THAWS, Histogram


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
    assert list(histogram.cumulative()) == [(1.0, 1), (float("inf"), 3)]
    assert repr(histogram) == "<Histogram count=3 sum=4.500000>"


@pytest.mark.qp("QP-230")
def test_the_bounds_are_the_contracts() -> None:
    assert DURATIONS == (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
    assert THAWS[0] == 50e-6 and THAWS[-1] == 1.0 and list(THAWS) == sorted(THAWS)
