"""What keeps an idle app awake."""

from dataclasses import replace
from math import inf

import pytest

from queueproxy.freeze.hold import Hold
from queueproxy.freeze.settings import IdleSettings

SETTINGS = IdleSettings(min_uptime=10.0, min_running=0.25, min_between_freezes=1.0, breaker_failures=2)


@pytest.fixture
def armed() -> Hold:
    hold = Hold(SETTINGS)
    hold.ready(0.0)
    return hold


@pytest.mark.fz("FZ-010", "FZ-011")
def test_nothing_sleeps_before_readiness_and_the_minimum_uptime() -> None:
    hold = Hold(SETTINGS)
    assert hold.until == inf and hold.words(1e9) == "not ready yet"
    hold.ready(5.0)
    assert hold.until == 15.0 and hold.words(8.0) == "min uptime: 7 s to go" and hold.words(15.0) == ""


@pytest.mark.fz("FZ-012")
def test_a_relapse_serves_no_second_uptime_but_a_restart_does(armed: Hold) -> None:
    armed.unready()
    assert armed.until == inf
    armed.ready(2.0)
    assert armed.until == 10.0
    armed.unready()
    armed.ready(100.0)
    assert armed.until == 100.0
    armed.restarted()
    assert armed.until == inf
    armed.ready(200.0)
    assert armed.until == 210.0


@pytest.mark.fz("FZ-023")
def test_hysteresis_counts_from_the_sleep_and_from_the_thaw(armed: Hold) -> None:
    armed.slept(20.0)
    assert armed.until == 21.0
    armed.awoke(20.1, wanted=True)
    assert armed.until == 21.0
    armed.awoke(20.9, wanted=True)
    assert armed.until == 21.15


@pytest.mark.fz("FZ-098")
def test_a_pledge_is_redeemed_once_and_the_longest_counts(armed: Hold) -> None:
    armed.pledge(5.0)
    armed.pledge(0.1)
    assert armed.until == 10.0
    armed.awoke(20.0, wanted=False)
    assert armed.until == 25.0 and armed.words(24.0) == "held: 1 s to go"
    armed.pledge(None)
    armed.awoke(30.0, wanted=False)
    assert armed.until == 30.25


@pytest.mark.fz("FZ-023", "FZ-098")
def test_a_short_pledge_undercuts_the_minimum_unless_somebody_wants_the_app(armed: Hold) -> None:
    armed.pledge(0.1)
    armed.awoke(20.0, wanted=False)
    assert armed.until == 20.1
    armed.pledge(0.1)
    armed.awoke(30.0, wanted=True)
    assert armed.until == 30.25
    armed.awoke(40.0, wanted=False)
    assert armed.until == 40.25, "no pledge left: the minimum"


@pytest.mark.fz("FZ-011")
def test_another_minimum_uptime_counts_from_the_same_readiness(armed: Hold) -> None:
    armed.configured(replace(SETTINGS, min_uptime=3.0))
    assert armed.until == 3.0
    armed.unready()
    armed.configured(replace(SETTINGS, min_uptime=30.0))
    assert armed.until == inf
    armed.ready(20.0)
    assert armed.until == 30.0


def test_keeping_never_shortens(armed: Hold) -> None:
    armed.keep(20.0, 5.0)
    armed.keep(21.0, 0.0)
    assert armed.until == 25.0
    armed.keep(25.0, None)
    assert armed.until == 25.25


@pytest.mark.fz("FZ-065", "FZ-066")
def test_a_failure_spends_the_idle_period_and_several_suspend_freezing(armed: Hold) -> None:
    armed.failed(20.0, "EBUSY")
    assert armed.until == inf and armed.spent
    assert armed.words(20.0) == "freeze failed: EBUSY; not again before the next request"
    armed.renew()
    assert armed.until == 10.0 and not armed.spent
    armed.failed(30.0, "EBUSY")
    armed.renew()
    assert armed.until == 60.0 and armed.words(31.0) == "2 freezes failed: suspended for 29 s"
    armed.succeeded()
    armed.failed(100.0, "EBUSY")
    armed.renew()
    assert armed.until < 100.0


def test_the_repr_shows_the_instants(armed: Hold) -> None:
    assert repr(armed) == "<Hold until=10 armed_at=10 spent=False <FreezeBreaker failures=0 until=-inf>>"
