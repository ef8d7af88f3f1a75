"""Decides the order and the pace of thaws that nobody waits for.

Theory of operation. A thaw by request never comes here: it is carried out at once. Safety thaws (lease over, drain,
changed policy) wait in two lanes, one for those that must run within a second and one that may take its time; the
hurried lane goes first. A token bucket lets `pace` of them through per second. A thaw by request takes a token as
well if there is one, so that safety gives way where the kernel is busy. Whatever the bucket says, none is let through
later than its `by`, and a lane too long for the pace is spread evenly over the time it has left, because a crowd at
the last instant would be the storm that this is to prevent (FZ-095, T-15). At most `BATCH` are let through per call,
and `next_at` then says "at once": the loop gets to the requests in between.
"""

from __future__ import annotations

from collections import OrderedDict
from math import inf

__all__ = ["BATCH", "Storm"]

# A confirmed thaw costs 0.1-0.2 ms (FZ-070): a request that arrives in the middle of a batch waits for less than 1 ms.
BATCH = 4


class _Lane:
    """Waits in order; every pod has the same allowance, so the order of arrival is the order of `by`."""

    __slots__ = ("by", "since")

    def __init__(self) -> None:
        self.by: OrderedDict[str, float] = OrderedDict()  # uid -> the latest instant
        self.since = 0.0  # the latest release, or the arrival of the first

    def add(self, now: float, uid: str, by: float) -> None:
        if not self.by:
            self.since = now
        self.by.setdefault(uid, by)

    def pop(self, now: float) -> str:
        self.since = now
        return self.by.popitem(last=False)[0]

    def forced_at(self) -> float:
        """When the first goes without a token: its own time is up, or the lane's is running out."""
        if not self.by:
            return inf
        first, last = next(iter(self.by.values())), next(reversed(self.by.values()))
        return min(first, self.since + (last - self.since) / len(self.by))


class Storm:
    """Who of those in no hurry may thaw now?"""

    __slots__ = ("_at", "_burst", "_calm", "_pace", "_soon", "_tokens")

    def __init__(self, pace: float, burst: int) -> None:
        self._pace = pace
        self._burst = self._tokens = float(burst)
        self._at = -inf  # of `_tokens`
        self._soon = _Lane()
        self._calm = _Lane()

    def __repr__(self) -> str:
        return f"<Storm soon={len(self._soon.by)} calm={len(self._calm.by)} tokens={self._tokens:.2f}>"

    def __len__(self) -> int:
        return len(self._soon.by) + len(self._calm.by)

    def __contains__(self, uid: str) -> bool:
        return uid in self._soon.by or uid in self._calm.by

    def add(self, now: float, uid: str, by: float, *, soon: bool) -> None:
        """Queue the pod. One that waits already keeps its place, unless it is in more of a hurry now."""
        self._refill(now)
        if soon:
            self._calm.by.pop(uid, None)
            self._soon.add(now, uid, by)
        elif uid not in self._soon.by:
            self._calm.add(now, uid, by)

    def discard(self, uid: str) -> None:
        """It need not thaw any more, or not wait for it."""
        if self._soon.by.pop(uid, None) is None:
            self._calm.by.pop(uid, None)

    def requested(self, now: float) -> None:
        """A thaw by request went ahead of the queue."""
        self._refill(now)
        self._tokens = max(0.0, self._tokens - 1.0)

    def release(self, now: float) -> list[str]:
        """Those whose turn it is by `now`, at most a batch."""
        self._refill(now)
        let: list[str] = []
        for lane in (self._soon, self._calm):
            while lane.by and len(let) < BATCH and (self._tokens >= 1.0 or lane.forced_at() <= now):
                let.append(lane.pop(now))
                self._tokens = max(0.0, self._tokens - 1.0)
        return let

    def next_at(self) -> float:
        """When to call `release`; infinity while nobody waits."""
        if not self._soon.by and not self._calm.by:
            return inf
        # A nanosecond more, or rounding would leave the bucket short of one token at the instant named.
        token_at = self._at if self._tokens >= 1.0 else self._at + (1.0 - self._tokens) / self._pace + 1e-9
        return min(token_at, self._soon.forced_at(), self._calm.forced_at())

    def _refill(self, now: float) -> None:
        if now <= self._at:
            return
        if self._at > -inf:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._pace)
        self._at = now
