"""Proves queueproxy.bench.histogram: no value is lost, no percentile is more than one bucket off."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueproxy.bench.histogram import BUCKETS, LONGEST_US, Histogram, bucket, middle


@pytest.mark.parametrize(
    ("us", "index"),
    [(0, 0), (1, 1), (127, 127), (128, 128), (129, 128), (255, 191), (256, 192), (LONGEST_US, BUCKETS - 1)],
    ids=lambda value: str(value),
)
def test_a_latency_has_the_bucket_of_its_top_seven_bits(us: int, index: int) -> None:
    assert bucket(us) == index


def test_what_is_out_of_range_lands_at_the_ends() -> None:
    assert bucket(-1) == 0
    assert bucket(LONGEST_US + 1) == BUCKETS - 1


@given(st.integers(0, LONGEST_US))
def test_the_middle_of_a_bucket_is_within_one_percent_of_its_values(us: int) -> None:
    assert abs(middle(bucket(us)) - us) <= max(0.5, us * 0.01)


@given(st.integers(0, LONGEST_US - 1))
def test_longer_latencies_never_have_lower_buckets(us: int) -> None:
    assert 0 <= bucket(us + 1) - bucket(us) <= 1


@given(st.lists(st.integers(0, 10_000_000), min_size=1, max_size=200), st.sampled_from([1, 50, 90, 99, 100]))
def test_a_percentile_is_that_of_the_sorted_values(values: list[int], percent: int) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    ordered = sorted(values)
    exact = ordered[max(1, -(-len(ordered) * percent // 100)) - 1]
    assert histogram.percentile(percent) == middle(bucket(exact))


def test_nothing_recorded_has_percentile_zero() -> None:
    assert Histogram().percentile(99) == 0


def test_counts_travel_and_add_up() -> None:
    one, two = Histogram(), Histogram()
    for us in (10, 10, 5000):
        one.record(us)
    two.record(10)
    two.add(one.as_counts())
    assert two.total == 4
    assert two.as_counts() == {"10": 3, str(bucket(5000)): 1}
    assert two.percentile(99) == middle(bucket(5000))


def test_it_shows_its_figures() -> None:
    histogram = Histogram()
    histogram.record(100)
    assert repr(histogram) == "<Histogram 1 p50=100us p99=100us>"
