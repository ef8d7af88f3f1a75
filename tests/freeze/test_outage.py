"""When to dial again, and when to say that nobody is there."""

from itertools import pairwise
from math import inf
from random import Random

import pytest

from queueproxy.freeze.dialogue import Fault, Patience
from queueproxy.freeze.outage import Outage

PATIENCE = Patience(backoff=0.05, urgent_cap=1.0, backoff_cap=30.0, total=1.0)


def pauses(*, urgent: bool, seed: int = 1) -> list[float]:
    outage, found = Outage(Random(seed), PATIENCE), []
    for now in range(20):
        outage.failed(float(now), Fault.CONNECT, "refused", urgent=urgent)
        found.append(outage.dial_at - now)
    return found


@pytest.mark.fz("FZ-063", "FZ-066")
def test_pauses_double_up_to_a_cap_with_jitter() -> None:
    found = pauses(urgent=False)
    for number, pause in enumerate(found, 1):
        longest = min(30.0, 0.05 * 2**number)
        assert longest / 2 <= pause <= longest
    assert all(later > earlier for earlier, later in pairwise(found[:8:2]))
    assert found != pauses(urgent=False, seed=2) and found == pauses(urgent=False), "seeded"


@pytest.mark.fz("FZ-067")
def test_while_somebody_waits_the_pause_is_never_more_than_a_second() -> None:
    assert max(pauses(urgent=True)) <= 1.0


@pytest.mark.fz("FZ-014")
def test_an_outage_is_announced_once_its_time_is_over_and_only_once() -> None:
    outage = Outage(Random(1), PATIENCE)
    assert outage.announce_at == inf
    outage.failed(10.0, Fault.CONNECT, "refused", urgent=False)
    outage.failed(10.5, Fault.TIMEOUT, "silent", urgent=False)
    assert outage.announce_at == 11.0 and outage.why == "silent"
    outage.announced = True
    assert outage.announce_at == inf
    outage.over()
    assert (outage.failures, outage.announced, outage.announce_at) == (0, False, inf)
    assert outage.faults == {Fault.CONNECT: 1, Fault.TIMEOUT: 1}, "for the metrics, for ever"


def test_an_ended_connection_is_no_failure_and_no_hurry() -> None:
    outage = Outage(Random(1), PATIENCE)
    outage.rested(5.0)
    assert 5.5 <= outage.dial_at <= 6.0 and outage.failures == 0 and outage.announce_at == inf


@pytest.mark.fz("FZ-130")
def test_a_freezer_may_ask_for_patience_within_bounds() -> None:
    outage = Outage(Random(1), PATIENCE)
    outage.failed(0.0, Fault.REFUSED, "busy", urgent=False)
    outage.postponed(0.0, 7.0, urgent=False)
    assert outage.dial_at == 7.0
    outage.postponed(0.0, 1e9, urgent=False)
    assert outage.dial_at == 30.0
    outage.postponed(0.0, 1e9, urgent=True)
    assert outage.dial_at == 30.0, "never sooner than planned"
    assert repr(outage) == "<Outage failures=1 since=0 announced=False 'busy'>"
