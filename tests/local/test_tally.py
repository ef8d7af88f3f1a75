"""Where the time of a run went."""

import pytest

from queueproxy.local.tally import Tally


def test_time_is_booked_to_the_state_it_was_spent_in() -> None:
    tally = Tally("AWAKE", 10.0)
    tally.moved("GRACE", 12.0)
    tally.moved("FROZEN", 13.0)
    assert tally.in_state("AWAKE", 20.0) == 2.0
    assert tally.in_state("GRACE", 20.0) == 1.0
    assert tally.in_state("FROZEN", 20.0) == 7.0
    assert tally.lasted(20.0) == 10.0
    tally.moved("AWAKE", 21.0)
    tally.moved("FROZEN", 22.0)
    assert tally.in_state("FROZEN", 23.0) == 9.0


def test_percentiles_come_from_the_wakes_seen() -> None:
    tally = Tally("AWAKE", 0.0)
    assert tally.took(0.5) is None
    for took in (0.004, 0.001, 0.002, 0.003):
        tally.woke(took)
    assert (tally.wakes, tally.took(0.0), tally.took(0.5), tally.took(1.0)) == (4, 0.001, 0.003, 0.004)


@pytest.mark.fz("FZ-105")
def test_the_saving_is_the_idle_rate_over_the_time_asleep() -> None:
    tally = Tally("AWAKE", 0.0)
    assert tally.cpu_saved(100.0) is None
    tally.idled(cpu_for=0.02, idle_for=1.0)
    tally.idled(cpu_for=0.04, idle_for=2.0)
    assert tally.idle_rate == pytest.approx(0.02)
    assert tally.idle_cpu == pytest.approx(0.06)
    assert tally.cpu_saved(100.0) == pytest.approx(2.0)


def test_a_counter_that_went_backwards_saves_nothing_rather_than_less() -> None:
    tally = Tally("AWAKE", 0.0)
    tally.idled(cpu_for=-1.0, idle_for=1.0)
    assert tally.cpu_saved(10.0) == 0.0
