"""When a sleeping app is looked at for once."""

from math import inf

import pytest

from queueproxy.freeze.deepcheck import SHORTEST, DeepCheck
from queueproxy.freeze.settings import IdleSettings

pytestmark = pytest.mark.fz("FZ-043")


def check(every: float | None) -> DeepCheck:
    found = DeepCheck()
    found.configured(every)
    return found


def test_it_is_off_by_default() -> None:
    deep = DeepCheck()
    deep.probed(1.0)
    assert deep.due_at(2.0) == inf and repr(deep) == "<DeepCheck every=None>"


def test_the_period_runs_from_the_last_real_probe_whatever_woke_the_app_meanwhile() -> None:
    deep = check(60.0)
    deep.probed(100.0)
    assert deep.due_at(101.0) == deep.due_at(130.0) == 160.0
    deep.probed(140.0)
    assert deep.due_at(141.0) == 200.0


def test_a_wake_without_a_result_is_not_repeated_at_once() -> None:
    deep = check(60.0)
    assert deep.due_at(5.0) == 65.0, "no probe yet"
    deep.probed(10.0)
    assert deep.due_at(71.0) == 131.0, "the one at 70 came to nothing"


def test_the_shortest_period_stays_within_the_flap_budget() -> None:
    assert check(0.0).every == SHORTEST
    settings = IdleSettings()
    assert settings.flap_window / SHORTEST <= settings.flap_limit / 2
