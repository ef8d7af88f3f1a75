"""Decides what a readiness probe is told: the prober's word, except for an app that cannot be woken.

Such an app is asleep and its last real result was good, but nobody should send traffic to it (FZ-046, FZ-067).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["Readiness"]


class Checked(Protocol):
    """runner.Prober, as far as it is used here."""

    def check(self, done: Callable[[bool], None]) -> None: ...


class Readiness:
    """stuck(): a thaw has failed too often."""

    __slots__ = ("_prober", "_stuck")

    def __init__(self, prober: Checked, stuck: Callable[[], bool]) -> None:
        self._prober = prober
        self._stuck = stuck

    def __repr__(self) -> str:
        return f"<Readiness {'stuck ' if self._stuck() else ''}{self._prober!r}>"

    def check(self, done: Callable[[bool], None]) -> None:
        """Calls `done(ready)` once, now or later."""
        if self._stuck():
            done(False)
        else:
            self._prober.check(done)
