"""What sleep is worth, from the kernel's counters."""

import pytest

from queueproxy.freeze.node.usage import PodUsage
from queueproxy.freeze.vocabulary import Rung

S = 1_000_000  # microseconds


@pytest.mark.fz("FZ-105")
def test_cpu_belongs_to_the_state_in_which_it_was_used() -> None:
    usage = PodUsage(0.0)
    usage.looked(0.0, 1 * S)
    usage.moved(10.0, Rung.THROTTLED, 3 * S, 0)
    usage.moved(20.0, Rung.FROZEN, 4 * S, 0)
    usage.moved(30.0, Rung.RUNNING, 4 * S, 10 * S)
    usage.moved(40.0, Rung.FROZEN, 9 * S, 10 * S)
    assert usage.cpu_s == [2.0 + 5.0, 1.0, 0.0]
    assert usage.asleep_s == [0.0, 10.0, 10.0]


@pytest.mark.fz("FZ-103")
def test_time_frozen_is_the_kernels_where_it_counts_it() -> None:
    usage = PodUsage(0.0)
    usage.moved(1.0, Rung.FROZEN, None, 500)
    usage.moved(3.0, Rung.RUNNING, None, 500 + 1_990_000)
    assert usage.asleep_s[Rung.FROZEN] == pytest.approx(1.99)


@pytest.mark.fz("FZ-103")
def test_and_our_own_clocks_where_it_does_not() -> None:
    usage = PodUsage(0.0)
    usage.moved(1.0, Rung.FROZEN, None, None)
    usage.moved(3.0, Rung.RUNNING, None, None)
    assert usage.asleep_s[Rung.FROZEN] == 2.0


def test_saved_is_the_idle_rate_times_the_sleep_less_what_was_used_asleep() -> None:
    usage = PodUsage(0.0)
    usage.looked(0.0, 0)  # busy until 8.5: not to be counted
    usage.looked(9.0, 5 * S)
    usage.moved(10.0, Rung.THROTTLED, 5 * S + S // 10, None, idle_for=1.5)
    assert usage.idle_rate == pytest.approx(0.1) and usage.saved(20.0) == pytest.approx(1.0)
    usage.moved(20.0, Rung.RUNNING, 5 * S + S // 10 + S // 5, None)
    assert usage.saved_s == usage.saved(99.0) == pytest.approx(0.8)


@pytest.mark.parametrize(
    "sampled_at", [pytest.param(9.95, id="too short to measure"), pytest.param(9.0, id="the app was still busy then")]
)
def test_nothing_is_claimed_before_anything_was_measured(sampled_at: float) -> None:
    usage = PodUsage(0.0)
    usage.looked(sampled_at, 5 * S)
    usage.moved(10.0, Rung.FROZEN, 9 * S, None, idle_for=0.5)
    usage.moved(20.0, Rung.RUNNING, 9 * S, None)
    assert (usage.idle_rate, usage.saved_s) == (None, 0.0)


def test_the_last_known_rate_stands_in_for_a_missing_sample() -> None:
    usage = PodUsage(0.0)
    usage.looked(9.0, 0)
    usage.moved(10.0, Rung.FROZEN, S // 2, None, idle_for=2.0)
    usage.moved(11.0, Rung.RUNNING, S // 2, None)
    usage.moved(12.0, Rung.FROZEN, S // 2, None, idle_for=2.0)
    usage.moved(14.0, Rung.RUNNING, S // 2, None)
    assert usage.saved_s == pytest.approx(0.5 * 3)


def test_a_counter_that_starts_anew_takes_nothing_back() -> None:
    usage = PodUsage(0.0)
    usage.looked(0.0, 9 * S)
    usage.moved(1.0, Rung.FROZEN, 1 * S, 9 * S, idle_for=2.0)
    usage.moved(2.0, Rung.RUNNING, 0, 1 * S)
    assert usage.cpu_s == [0.0, 0.0, 0.0] and usage.asleep_s[Rung.FROZEN] == 0.0 and usage.saved_s == 0.0


def test_the_present_sleep_counts_while_it_lasts() -> None:
    usage = PodUsage(0.0)
    usage.moved(1.0, Rung.FROZEN, 0, 0)
    assert usage.asleep_for(4.5) == 3.5
    usage.moved(5.0, Rung.RUNNING, 0, 4 * S)
    assert usage.asleep_for(99.0) == 4.0
