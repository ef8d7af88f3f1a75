"""Readiness is the prober's word unless the app cannot be woken."""

from collections.abc import Callable

import pytest

from queueproxy.probes.readiness import Readiness


class Prober:
    """Says what it is told to, and counts."""

    def __init__(self, word: bool) -> None:
        self.word = word
        self.asked = 0

    def __repr__(self) -> str:
        return "<Prober>"

    def check(self, done: Callable[[bool], None]) -> None:
        self.asked += 1
        done(self.word)


@pytest.mark.fz("FZ-046", "FZ-067")
@pytest.mark.parametrize(("word", "stuck", "ready"), [(True, False, True), (False, False, False), (True, True, False)])
def test_an_app_that_cannot_be_woken_is_not_ready_whatever_it_was_last(word: bool, stuck: bool, ready: bool) -> None:
    prober, said = Prober(word), []
    readiness = Readiness(prober, lambda: stuck)
    readiness.check(said.append)
    assert said == [ready] and prober.asked == (not stuck)
    assert repr(readiness) == f"<Readiness {'stuck ' * stuck}<Prober>>"
