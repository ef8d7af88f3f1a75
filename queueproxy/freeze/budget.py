"""Decides how long a wake without a request may last: short while there is budget, long when there is none left.

Each knock costs a sleeping pod a thaw and a freeze, and anybody in the pod can knock (T-24). Refusing to wake would
fail a probe, so a spent budget is answered the other way: the app stays awake for longer, which bounds the wakes
instead. Sixty short wakes at once and one more each second are enough for a probe a second; with more than that the
pod is awake for `LONG` at a time until the budget has recovered.
"""

from typing import Final

__all__ = ["LONG", "SHORT", "WakeBudget"]

SHORT: Final = 0.1  # seconds from the confirmed thaw: an accept and an answer; a longer one is looked for (FZ-028)
LONG: Final = 5.0
BURST: Final = 60.0
PER_SECOND: Final = 1.0


class WakeBudget:
    """A token bucket."""

    __slots__ = ("_at", "_left")

    def __init__(self, now: float) -> None:
        self._at = now
        self._left = BURST

    def __repr__(self) -> str:
        return f"<WakeBudget {self._left:.1f} of {BURST:g}>"

    def spent(self, now: float) -> float:
        """A wake is due; how long it is to last."""
        self._left = min(BURST, self._left + (now - self._at) * PER_SECOND)
        self._at = now
        if self._left < 1.0:
            return LONG
        self._left -= 1.0
        return SHORT
