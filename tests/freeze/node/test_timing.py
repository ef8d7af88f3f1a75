"""Durations in buckets."""

from math import inf

from queueproxy.freeze.node.timing import BOUNDS, Timing


def test_a_bound_belongs_to_its_bucket_and_the_last_holds_the_rest() -> None:
    timing = Timing()
    for seconds in (0.0, BOUNDS[0], BOUNDS[0] * 1.01, 1.0, 1.01, 60.0):
        timing.observe(seconds)
    found = dict(timing.cumulative())
    assert (found[BOUNDS[0]], found[BOUNDS[1]], found[1.0], found[inf]) == (2, 3, 4, 6)
    assert list(found) == [*BOUNDS, inf] and sum(timing.counts) == 6
    assert repr(timing) == f"<Timing 6 in {timing.sum:.6f} s>"
