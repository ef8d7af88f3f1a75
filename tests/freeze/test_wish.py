"""The fenced question to the mechanism."""

from math import inf

import pytest

from queueproxy.freeze.settings import IdleSettings
from queueproxy.freeze.vocabulary import Ask, Rung
from queueproxy.freeze.wish import Wish

SETTINGS = IdleSettings(freeze_deadline=1.0, thaw_deadline=0.3, thaw_retries=2, thaw_retry_after=0.02,
                        thaw_backoff=0.5, thaw_backoff_cap=1.5)  # fmt: skip


def test_a_new_wish_has_a_new_generation_and_its_own_deadline() -> None:
    wish = Wish(SETTINGS)
    assert wish.settled and wish.until == inf
    assert wish.ask(10.0, Rung.FROZEN, "idle") == Ask(Rung.FROZEN, 1, "idle")
    assert (wish.settled, wish.out, wish.until) == (False, True, 11.0)
    assert wish.ask(10.1, Rung.RUNNING, "request") == Ask(Rung.RUNNING, 2, "request")
    assert wish.until == pytest.approx(10.4)
    wish.settle()
    assert (wish.settled, wish.out, wish.until) == (True, False, inf)


@pytest.mark.fz("FZ-067")
def test_a_failing_thaw_is_repeated_fast_then_slowly_under_one_generation() -> None:
    wish = Wish(SETTINGS)
    wish.ask(0.0, Rung.RUNNING, "request")
    pauses, given_up = [], []
    for _ in range(6):
        given_up.append(wish.thaw_failed(100.0))
        pauses.append(wish.until - 100.0)
        assert not wish.out and wish.stuck == given_up[-1]
        assert wish.repeat(100.0) == Ask(Rung.RUNNING, 1, "request")
    assert given_up == [False, False, True, True, True, True]
    assert pauses == pytest.approx([0.02, 0.04, 0.5, 1.0, 1.5, 1.5])
    assert repr(wish) == "wish=RUNNING gen=1 unsettled stuck"
    wish.settle()
    assert not wish.stuck


@pytest.mark.fz("FZ-067")
def test_a_new_wish_starts_with_fast_attempts_but_stays_stuck_until_confirmed() -> None:
    wish = Wish(SETTINGS)
    wish.ask(0.0, Rung.RUNNING, "request")
    for _ in range(3):
        wish.thaw_failed(0.0)
    wish.ask(1.0, Rung.RUNNING, "found frozen")
    assert wish.stuck and wish.attempts == 0
    wish.thaw_failed(2.0)
    assert wish.until == pytest.approx(2.02)
