"""What the session has to get across."""

from math import inf

import pytest

from queueproxy.freeze.errand import Errand
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import OldAction, StateRequest, Wanted


@pytest.fixture
def errand() -> Errand:
    errand = Errand()
    errand.put(10.0, Rung.FROZEN, 3, "idle for 2 s")
    return errand


@pytest.mark.fz("FZ-060", "FZ-069")
def test_a_wish_in_both_protocols(errand: Errand) -> None:
    assert errand.request(30.0) == StateRequest(Wanted.IDLE, 3, 30.0, "idle for 2 s", Rung.FROZEN)
    assert errand.old() is OldAction.PAUSE
    errand.put(11.0, Rung.RUNNING, 4, "request")
    assert errand.request(30.0) == StateRequest(Wanted.ACTIVE, 4, reason="request")
    assert errand.old() is OldAction.RESUME


@pytest.mark.fz("FZ-050")
def test_the_end_outweighs_any_wish_and_has_a_newer_generation(errand: Errand) -> None:
    errand.end(20.0)
    assert errand.request(30.0) == StateRequest(Wanted.TERMINATING, 4, reason="terminating")
    assert errand.old() is OldAction.RESUME
    errand.asked = False
    assert errand.pending(19.0) and not errand.pending(20.0)
    errand.ended()
    assert not errand.pending(19.0) and errand.ending


@pytest.mark.fz("FZ-090")
@pytest.mark.parametrize(("lease", "renewal"), [(30.0, 10.0), (3.0, 1.0), (0.3, 0.5), (0.0, 0.5)])
def test_a_sleep_is_renewed_every_third_of_its_lease(errand: Errand, lease: float, renewal: float) -> None:
    errand.confirmed(Rung.THROTTLED, 100.0, lease)
    assert errand.held and errand.renew_at == 100.0 + renewal and not errand.asked


def test_only_a_confirmed_sleep_is_held(errand: Errand) -> None:
    errand.confirmed(Rung.RUNNING, 100.0, 30.0)
    assert not errand.held and errand.renew_at == inf
    errand.put(11.0, Rung.RUNNING, 4, "request")
    errand.confirmed(Rung.RUNNING, 100.0, 30.0)
    assert not errand.held and not errand.urgent
    late = Errand()
    late.put(1.0, Rung.FROZEN, 1, "")
    late.asked = False  # given up: a late answer holds nothing
    late.confirmed(Rung.FROZEN, 5.0, 30.0)
    assert not late.held


def test_a_new_wish_lets_go_of_the_old_sleep(errand: Errand) -> None:
    errand.confirmed(Rung.FROZEN, 100.0, 30.0)
    errand.put(101.0, Rung.RUNNING, 4, "request")
    assert not errand.held and errand.renew_at == inf and errand.urgent
    assert repr(errand) == "RUNNING gen=4 asked"


@pytest.mark.fz("FZ-033")
def test_running_is_certain_only_of_a_freezer_that_has_read_our_newest_wish_to_sleep() -> None:
    errand = Errand()
    errand.found(Rung.RUNNING, 0)
    assert errand.runs
    errand.said(StateRequest(Wanted.IDLE, 3))
    errand.found(Rung.RUNNING, 2)
    assert not errand.runs, "it may still lie on the connection before"
    errand.found(Rung.RUNNING, 3)
    assert errand.runs
    errand.found(Rung.FROZEN, 4)
    assert not errand.runs
