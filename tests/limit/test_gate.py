"""Handing slots over: in order, without recursion, and without losing one when a waiter fails."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from queueproxy.limit.breaker import ADMITTED, QUEUED, Breaker
from queueproxy.limit.gate import LimitGate, Waiter


class Request:
    """Does `then` when admitted."""

    def __init__(self, order: list[int], number: int, then: Callable[[], None] = lambda: None) -> None:
        self._order = order
        self._number = number
        self._then = then

    def admitted(self) -> None:
        self._order.append(self._number)
        self._then()


def gate(capacity: int, depth: int = 10_000) -> LimitGate:
    return LimitGate(Breaker[Waiter](capacity, depth))


@pytest.mark.qp("QP-156")
def test_the_freed_slot_goes_to_the_longest_waiter() -> None:
    limit, order = gate(1), list[int]()
    assert limit.enter(Request(order, 0)) is ADMITTED and order == [], "who is admitted at once is not called"
    for number in range(1, 4):
        assert limit.enter(Request(order, number)) is QUEUED
    limit.leave()
    limit.leave()
    assert order == [1, 2]


@pytest.mark.qp("QP-132", "QP-151")
def test_five_thousand_waiters_that_fail_at_once_do_not_recurse() -> None:
    limit, order = gate(1), list[int]()
    limit.enter(Request(order, 0))
    deepest = 0

    def fail() -> None:
        nonlocal deepest
        depth, frame = 0, sys._getframe()
        while frame.f_back is not None:
            depth, frame = depth + 1, frame.f_back
        deepest = max(deepest, depth)
        limit.leave()

    for number in range(1, 5001):
        limit.enter(Request(order, number, fail))
    base, frame = 0, sys._getframe()
    while frame.f_back is not None:
        base, frame = base + 1, frame.f_back
    limit.leave()
    assert order == list(range(1, 5001)) and limit.breaker.in_flight == 0
    assert deepest - base < 10


@pytest.mark.qp("QP-153")
def test_a_waiter_may_be_cancelled_while_slots_are_handed_over() -> None:
    limit, order = gate(1), list[int]()
    limit.enter(Request(order, 0))
    second = Request(order, 2)

    def cancel_the_next_and_leave() -> None:
        limit.cancel(second)
        limit.leave()

    limit.enter(Request(order, 1, cancel_the_next_and_leave))
    limit.enter(second)
    limit.enter(Request(order, 3))
    limit.leave()
    assert order == [1, 3] and limit.breaker.in_flight == 1


@pytest.mark.qp("QP-132")
def test_a_waiter_that_breaks_does_not_take_other_slots_with_it() -> None:
    limit, order = gate(2), list[int]()

    def leave_and_break() -> None:
        limit.leave()  # a request that ended meanwhile
        raise RuntimeError("ours")

    limit.enter(Request(order, 0))
    limit.enter(Request(order, 1))
    limit.enter(Request(order, 2, leave_and_break))
    limit.enter(Request(order, 3))
    with pytest.raises(RuntimeError, match="ours"):
        limit.leave()
    assert order == [2, 3]
    limit.enter(Request(order, 4))
    limit.leave()
    assert order == [2, 3, 4], "and it still hands over"
    limit.leave()
    limit.leave()
    assert limit.breaker.in_flight == 0
