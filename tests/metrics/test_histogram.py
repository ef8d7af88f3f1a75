"""The buckets of the request metrics."""

import pytest

from queueproxy import buckets
from queueproxy.metrics import histogram


@pytest.mark.qp("QP-230")
def test_the_bounds_are_the_contracts() -> None:
    assert histogram.DURATIONS == (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)


def test_the_sidecar_counts_with_the_same_histogram_as_the_freezer() -> None:
    assert histogram.Histogram is buckets.Histogram and histogram.THAWS is buckets.THAWS
