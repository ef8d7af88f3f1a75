"""Decides when to dial a freezer again, and when to say that there is none.

Failures in a row move the next dial away: each pause twice the last one, up to a cap, and somewhere in its second
half, so that the pods of a node do not come back in step after their freezer's restart. An outage has one beginning
and is announced at most once, whatever goes wrong in it and however often (design D13).
"""

from math import inf
from random import Random

from queueproxy.freeze.dialogue import Fault, Patience

__all__ = ["Outage"]


class Outage:
    """How long and how often it has gone wrong; nothing at all while things are well."""

    __slots__ = ("_patience", "_random", "announced", "dial_at", "failures", "faults", "since", "why")

    def __init__(self, random: Random, patience: Patience) -> None:
        self._random = random
        self._patience = patience
        self.failures = 0  # in a row
        self.since = inf
        self.announced = False
        self.why = "no freezer yet"
        self.dial_at = inf
        self.faults: dict[Fault, int] = {}  # ever, for the metrics

    def __repr__(self) -> str:
        return f"<Outage failures={self.failures} since={self.since:g} announced={self.announced} {self.why!r}>"

    @property
    def announce_at(self) -> float:
        """When the freezer is given up; infinity while there is no reason to, or after it was said."""
        return inf if self.announced else self.since + self._patience.total

    def over(self) -> None:
        """The freezer answered."""
        self.failures, self.since, self.announced = 0, inf, False

    def count(self, fault: Fault) -> None:
        self.faults[fault] = self.faults.get(fault, 0) + 1

    def failed(self, now: float, fault: Fault, why: str, *, urgent: bool) -> None:
        """Once more. Urgent: the app sleeps, or somebody waits."""
        self.count(fault)
        self.why = why
        self.since = min(self.since, now)
        self.failures += 1
        cap = self._patience.urgent_cap if urgent else self._patience.backoff_cap
        self._pause(now, min(cap, self._patience.backoff * 2.0 ** min(self.failures, 30)))

    def rested(self, now: float) -> None:
        """The connection ended between two exchanges: no failure, and no hurry. A wish dials by itself."""
        self._pause(now, self._patience.urgent_cap)

    def postponed(self, now: float, seconds: float, *, urgent: bool) -> None:
        """The freezer said when to come back."""
        cap = self._patience.urgent_cap if urgent else self._patience.backoff_cap
        self.dial_at = max(self.dial_at, now + min(seconds, cap))

    def _pause(self, now: float, longest: float) -> None:
        self.dial_at = now + longest * self._random.uniform(0.5, 1.0)
