"""Decides how often who may ask: per pod, per source, all together, and without proof (FZ-130, T-13, T-14, T-16).

Theory of operation. One bucket is one number, the instant at which it will be full again (the generic cell rate
algorithm): a caller is allowed while that instant is no further away than the burst, and each allowed call moves it by
one interval. A key that was not seen for as long as its burst takes to refill is the same as one never seen, so the
tables are bounded and drop the longest unused first; what a flood of keys gains by that is bounded by the limit on all.

A call that one limit refuses is charged to none after it: the narrow limits come first.
"""

from typing import Final, NamedTuple

__all__ = ["Limits", "Rate", "Rates"]

_KEYS_MAX: Final = 4096  # of one table: 250 pods, and sources that are mostly pods


class Rate(NamedTuple):
    """So many calls a second for ever, and so many at once."""

    per_second: float
    burst: int


class Rates(NamedTuple):
    """The four limits. A cycle takes two calls, and twenty cycles a minute already count as flapping (FZ-024)."""

    pod: Rate = Rate(50.0, 100)
    source: Rate = Rate(100.0, 200)  # a pod's own address; more, because refused calls count as well
    everyone: Rate = Rate(5000.0, 10_000)  # five times the budget of one node (design 7)
    unproven: Rate = Rate(10.0, 20)  # calls whose token is not known good, of one source


class _Table:
    """Buckets by key."""

    __slots__ = ("_full_at", "_interval", "_tolerance")

    def __init__(self, rate: Rate) -> None:
        if rate.per_second <= 0 or rate.burst < 1:
            raise ValueError(f"out of range: {rate!r}")
        self._interval = 1.0 / rate.per_second
        self._tolerance = (rate.burst - 1) * self._interval
        self._full_at: dict[str, float] = {}

    def take(self, now: float, key: str) -> float:
        """0 when allowed, otherwise seconds until it would be."""
        full_at = max(self._full_at.pop(key, now), now)
        wait = full_at - now - self._tolerance
        if wait <= self._interval * 1e-9:  # rounding may not cost a call
            full_at += self._interval
            wait = 0.0
        self._full_at[key] = full_at  # last in the order: used last
        if len(self._full_at) > _KEYS_MAX:
            del self._full_at[next(iter(self._full_at))]
        return wait

    def forget(self, key: str) -> None:
        self._full_at.pop(key, None)

    def __len__(self) -> int:
        return len(self._full_at)


class Limits:
    """Each question answers 0 for yes, or the seconds after which asking again makes sense."""

    __slots__ = ("_everyone", "_pod", "_source", "_unproven", "refused")

    def __init__(self, rates: Rates = Rates()) -> None:  # noqa: B008 - immutable
        self._pod = _Table(rates.pod)
        self._source = _Table(rates.source)
        self._everyone = _Table(rates.everyone)
        self._unproven = _Table(rates.unproven)
        self.refused = {"pod": 0, "source": 0, "everyone": 0, "unproven": 0}  # for the metrics

    def __repr__(self) -> str:
        return f"<Limits pods={len(self._pod)} sources={len(self._source)} refused={self.refused}>"

    def call(self, now: float, source: str) -> float:
        """Any call, before anything of it is believed."""
        return self._ask(self._source, "source", now, source) or self._ask(self._everyone, "everyone", now, "")

    def unproven(self, now: float, source: str) -> float:
        """A call whose token is not known to be good: before it is decoded, let alone reviewed (T-13)."""
        return self._ask(self._unproven, "unproven", now, source)

    def pod(self, now: float, uid: str) -> float:
        """A call that speaks for this pod."""
        return self._ask(self._pod, "pod", now, uid)

    def gone(self, uid: str) -> None:
        self._pod.forget(uid)

    def _ask(self, table: _Table, name: str, now: float, key: str) -> float:
        wait = table.take(now, key)
        if wait:
            self.refused[name] += 1
        return wait
