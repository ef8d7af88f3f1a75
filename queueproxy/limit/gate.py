"""Holds the requests that wait for a slot and wakes them in order, without recursion.

A finished request hands its slot to the next, which may fail at once and hand it on: with a thousand dead waiters that
would be a thousand nested calls, so hand-over runs in one loop.
"""

from __future__ import annotations

from typing import Protocol

from queueproxy.limit.breaker import Admission, Breaker


class Waiter(Protocol):
    """A request that wants a slot. `admitted()` is called when it holds one."""

    def admitted(self) -> None: ...


class LimitGate:
    """The door to one Breaker, shared by all listeners (QP-155)."""

    __slots__ = ("_handing_over", "_owed", "breaker", "enter")

    def __init__(self, breaker: Breaker[Waiter]) -> None:
        self.breaker = breaker
        self.enter = breaker.admit  # the hot path calls the decision itself
        self._owed = 0
        self._handing_over = False

    def __repr__(self) -> str:
        return f"<LimitGate {self.breaker!r}>"

    def cancel(self, waiter: Waiter) -> None:
        """See Breaker.cancel."""
        self.breaker.cancel(waiter)

    def leave(self) -> None:
        """Gives one slot back; the next waiter's `admitted()` runs before this returns (or in the outer call)."""
        if self._handing_over:
            self._owed += 1
            return
        following = self.breaker.leave()
        if following is None:
            return
        self._handing_over = True
        try:
            following.admitted()
        finally:  # whatever became of it, slots given back meanwhile go on to the others
            self._hand_over()

    def _hand_over(self) -> None:
        try:
            while self._owed:
                self._owed -= 1
                following = self.breaker.leave()
                if following is not None:
                    following.admitted()
        finally:
            self._handing_over = False
            if self._owed:  # a waiter broke: recursion only as deep as the number of such faults
                self._handing_over = True
                self._hand_over()


__all__ = ["Admission", "LimitGate", "Waiter"]
