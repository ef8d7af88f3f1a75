"""The wake budget: generous to probes, a bound for whoever knocks too often, and never a refusal."""

import pytest

from queueproxy.freeze.budget import LONG, SHORT, WakeBudget


def holds(every: float, until: float) -> list[float]:
    budget, now, found = WakeBudget(0.0), 0.0, []
    while now < until:
        found.append(budget.spent(now))
        now += max(every, found[-1])  # an app that is awake is not knocked awake
    return found


@pytest.mark.fz("FZ-098")
@pytest.mark.parametrize("every", [1.0, 2.0, 10.0])
def test_a_probe_a_second_is_short_for_ever(every: float) -> None:
    assert set(holds(every, 86_400.0)) == {SHORT}


@pytest.mark.fz("FZ-098")
@pytest.mark.parametrize("every", [0.0, 0.1, 0.4])
def test_who_knocks_more_often_wakes_the_app_less_often(every: float) -> None:
    found = holds(every, 3600.0)
    assert found[:60] == [SHORT] * 60, "a burst is free"
    assert LONG in found and len(found) <= 60 + 3600 * 1.3, "then the wakes are bounded, not refused"


def test_the_budget_recovers_but_not_beyond_its_burst() -> None:
    budget = WakeBudget(0.0)
    for _ in range(60):
        assert budget.spent(0.0) == SHORT
    assert budget.spent(0.0) == LONG and budget.spent(0.9) == LONG
    assert budget.spent(1.0) == SHORT
    assert [budget.spent(1e6) for _ in range(61)].count(SHORT) == 60
    assert repr(budget) == "<WakeBudget 0.0 of 60>"
