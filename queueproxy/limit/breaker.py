"""Decides whether a request may start: slots, a FIFO queue, and who is next (knative-contract 4, QP-150…156).

Theory of operation. `capacity` requests run, `depth` more may wait; the next is refused at once. A freed slot goes to
the longest waiter, never to a newcomer: upstream allows barging, we do not (QP-156). Plain integers and a deque; the
waiter is any hashable object and the caller tells it that its turn has come. No clock: waiting has no limit of its own,
only the request's deadline or the client's departure end it (cancel).
"""

from __future__ import annotations

from collections import OrderedDict
from enum import IntEnum
from typing import Generic, TypeVar

W = TypeVar("W")


class Admission(IntEnum):
    """Answer to `admit`."""

    ADMITTED = 0
    QUEUED = 1
    REFUSED = 2


ADMITTED, QUEUED, REFUSED = Admission


class Breaker(Generic[W]):
    """capacity > 0: requests at the app at once. depth > 0: requests that may wait (Knative: 10 x capacity)."""

    __slots__ = ("_waiting", "capacity", "depth", "running")

    def __init__(self, capacity: int, depth: int) -> None:
        if capacity < 1 or depth < 1:
            raise ValueError(f"breaker needs capacity and depth of at least 1, got {capacity} and {depth}")
        self.capacity = capacity
        self.depth = depth
        self.running = 0
        self._waiting: OrderedDict[W, None] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Breaker {self.running}/{self.capacity} running, {len(self._waiting)}/{self.depth} waiting>"

    @property
    def in_flight(self) -> int:
        """Running and waiting: the queue depth gauge (QP-231)."""
        return self.running + len(self._waiting)

    def admit(self, waiter: W) -> Admission:
        """ADMITTED: runs now, `leave` it once. QUEUED: will be returned by somebody's `leave`. REFUSED: 503."""
        if self.running < self.capacity and not self._waiting:
            self.running += 1
            return ADMITTED
        if len(self._waiting) >= self.depth:
            return REFUSED
        self._waiting[waiter] = None
        return QUEUED

    def leave(self) -> W | None:
        """One admitted request ended. Returns the waiter that now holds its slot, or None."""
        assert self.running > 0, "a slot was given back twice"
        if self._waiting:
            return self._waiting.popitem(last=False)[0]
        self.running -= 1
        return None

    def cancel(self, waiter: W) -> None:
        """A queued waiter gives up; its place is free at once (QP-153)."""
        del self._waiting[waiter]
