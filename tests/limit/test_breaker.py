"""Who may start: the cases of upstream's breaker_test that apply, and a random walk beside a naive model."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from queueproxy.limit.breaker import ADMITTED, QUEUED, REFUSED, Breaker


@pytest.mark.qp("QP-151")
@pytest.mark.parametrize(("capacity", "depth"), [(1, 0), (0, 1), (-1, 1), (1, -1), (0, 0)])
def test_constructor_mistakes_are_loud(capacity: int, depth: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Breaker(capacity, depth)


@pytest.mark.qp("QP-151")
@pytest.mark.parametrize("capacity", [1, 2, 10, 1000])
def test_eleven_times_n_fit_and_the_next_is_refused(capacity: int) -> None:
    breaker: Breaker[int] = Breaker(capacity, 10 * capacity)
    answers = [breaker.admit(number) for number in range(11 * capacity)]
    assert answers == [ADMITTED] * capacity + [QUEUED] * 10 * capacity
    assert breaker.admit(-1) is REFUSED and breaker.in_flight == 11 * capacity
    assert breaker.leave() == capacity, "the longest waiter"
    assert breaker.admit(-1) is QUEUED and breaker.admit(-2) is REFUSED


@pytest.mark.qp("QP-151")
def test_overload_refuses_the_third_of_three_and_the_others_complete() -> None:
    breaker: Breaker[str] = Breaker(1, 1)
    assert [breaker.admit(name) for name in "abc"] == [ADMITTED, QUEUED, REFUSED]
    assert [breaker.leave(), breaker.leave(), breaker.in_flight] == ["b", None, 0]


@pytest.mark.qp("QP-150", "QP-156")
def test_finishing_one_admits_exactly_one_more_in_order() -> None:
    breaker: Breaker[int] = Breaker(2, 20)
    for number in range(10):
        breaker.admit(number)
    for expected in range(2, 10):
        assert breaker.leave() == expected and breaker.running == 2
    assert [breaker.leave(), breaker.leave(), breaker.running] == [None, None, 0]


@pytest.mark.qp("QP-156")
def test_a_newcomer_never_overtakes_a_waiter() -> None:
    breaker: Breaker[str] = Breaker(1, 2)
    breaker.admit("a")
    breaker.admit("b")
    assert breaker.leave() == "b" and breaker.admit("c") is QUEUED


@pytest.mark.qp("QP-153")
def test_cancelled_waiters_give_their_places_back_and_capacity_stays_exact() -> None:
    breaker: Breaker[int] = Breaker(1, 10)
    for _ in range(100):
        assert breaker.admit(0) is ADMITTED
        for number in range(1, 11):
            assert breaker.admit(number) is QUEUED
        for number in (5, 1, 10):
            breaker.cancel(number)
        assert breaker.in_flight == 8
        assert [breaker.leave() for _ in range(8)] == [2, 3, 4, 6, 7, 8, 9, None]
        assert (breaker.running, breaker.in_flight) == (0, 0)


def test_mistakes_of_the_caller_are_errors() -> None:
    breaker: Breaker[str] = Breaker(1, 1)
    with pytest.raises(AssertionError, match="twice"):
        breaker.leave()
    breaker.admit("a")
    with pytest.raises(KeyError):
        breaker.cancel("a")


@pytest.mark.qp("QP-231")
def test_it_says_how_full_it_is() -> None:
    breaker: Breaker[str] = Breaker(1, 10)
    breaker.admit("a")
    breaker.admit("b")
    assert repr(breaker) == "<Breaker 1/1 running, 1/10 waiting>" and breaker.in_flight == 2


class BesideAModel(RuleBasedStateMachine):
    """A breaker beside two lists."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker: Breaker[int] = Breaker(2, 3)
        self.running: list[int] = []
        self.waiting: list[int] = []
        self.number = 0

    @rule()
    def somebody_comes(self) -> None:
        self.number += 1
        answer = self.breaker.admit(self.number)
        if len(self.running) < 2:
            assert answer is ADMITTED
            self.running.append(self.number)
        elif len(self.waiting) < 3:
            assert answer is QUEUED
            self.waiting.append(self.number)
        else:
            assert answer is REFUSED

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 1))
    def somebody_leaves(self, which: int) -> None:
        self.running.pop(which % len(self.running))
        following = self.breaker.leave()
        assert following == (self.waiting.pop(0) if self.waiting else None)
        if following is not None:
            self.running.append(following)

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 2))
    def somebody_gives_up(self, which: int) -> None:
        self.breaker.cancel(self.waiting.pop(which % len(self.waiting)))

    @invariant()
    def the_counts_agree(self) -> None:
        assert self.breaker.running == len(self.running)
        assert self.breaker.in_flight == len(self.running) + len(self.waiting)


BesideAModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBesideAModel = pytest.mark.qp("QP-150", "QP-151", "QP-153", "QP-156")(BesideAModel.TestCase)
