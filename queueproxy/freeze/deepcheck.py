"""Decides when a sleeping app is woken for a real probe, because nobody else has asked for one (FZ-043).

Theory of operation. Asleep, readiness is the last real result. A pod without requests would repeat it for hours, and an
app that broke in its sleep (a disk that filled, a lease that ran out) would show that to its next caller. Who wants to
know earlier names a period: the app is then never asleep for longer than that after its last real probe. Each wake is a
touch, not a request: it takes part neither in the idle period nor in the flap limiter, and a period of `SHORTEST` or
more is at most six of them a minute, of the twenty that the flap limiter leaves alone.
"""

from __future__ import annotations

from math import inf
from typing import Final

__all__ = ["HOLD", "REASON", "SHORTEST", "DeepCheck"]

SHORTEST: Final = 10.0  # seconds
HOLD: Final = 0.1  # seconds awake at least; a probe that is under way is waited for
REASON: Final = "deep check"


class DeepCheck:
    """every: seconds, None: never."""

    __slots__ = ("_probed_at", "every")

    def __init__(self) -> None:
        self.every: float | None = None
        self._probed_at = -inf

    def __repr__(self) -> str:
        return f"<DeepCheck every={self.every}>"

    def configured(self, every: float | None) -> None:
        """Whoever says it, a period is no shorter than SHORTEST."""
        self.every = None if every is None else max(SHORTEST, every)

    def probed(self, now: float) -> None:
        """A real probe has ended, well or not, whoever wanted it."""
        self._probed_at = now

    def due_at(self, now: float) -> float:
        """For an app that sleeps: when to wake it. At least a period from now if nothing is known: a wake whose probe
        does not end must not be followed by the next one at once."""
        if self.every is None:
            return inf
        due = self._probed_at + self.every
        return due if due > now else now + self.every
