"""Decides when each rung is due, from the beginning of an idle period.

Every rung has its own delay. The first one is the grace, which the flap limiter may lengthen and the adaptive mode
may choose; whatever is added to it or taken from it shifts the deeper rungs as well, so that they keep their
distance.
"""

from queueproxy.freeze.grace import AdaptiveGrace, FlapLimiter
from queueproxy.freeze.settings import IdleSettings
from queueproxy.freeze.vocabulary import Rung

__all__ = ["Ladder"]


class Ladder:
    """The rungs with their delays, soonest first."""

    __slots__ = ("_adaptive", "_flaps", "rungs")

    def __init__(self, settings: IdleSettings) -> None:
        throttle, freeze = settings.throttle_after, settings.freeze_after
        rungs = []
        if throttle is not None and (freeze is None or throttle < freeze):
            rungs.append((throttle, Rung.THROTTLED))
        if freeze is not None:
            rungs.append((freeze, Rung.FROZEN))
        self.rungs = tuple(rungs)
        self._flaps = FlapLimiter(settings.flap_limit, settings.flap_window, settings.grace_cap)
        self._adaptive = (
            AdaptiveGrace(rungs[0][0], settings.adaptive_floor, settings.grace_cap, settings.wait_weight)
            if settings.adaptive and rungs
            else None
        )

    def __repr__(self) -> str:
        return f"<Ladder {self.rungs} {self._flaps!r} {self._adaptive!r}>"

    @property
    def learns(self) -> bool:
        """Gaps are worth telling."""
        return self._adaptive is not None

    def gap_seen(self, gap: float) -> None:
        """A request ended an idle period of `gap` seconds."""
        if self._adaptive is not None:
            self._adaptive.gap_seen(gap)

    def thaw_seen(self, took: float) -> None:
        """A thaw was confirmed."""
        if self._adaptive is not None:
            self._adaptive.thaw_seen(took)

    def cycled(self, now: float) -> None:
        """A request woke the app from sleep."""
        self._flaps.cycled(now)

    def grace(self, since: float) -> float:
        """The first delay in a period that began at `since`: a doubling that decays meanwhile does not move it."""
        base = self.rungs[0][0] if self._adaptive is None else self._adaptive.grace
        return self._flaps.stretch(base, since)

    def dues(self, since: float, below: Rung) -> list[tuple[float, Rung]]:
        """The rungs deeper than `below`, with the instants at which they are due."""
        start = since + self.grace(since) - self.rungs[0][0]
        return [(start + delay, rung) for delay, rung in self.rungs if rung > below]

    def next_due(self, since: float, below: Rung) -> float | None:
        return min((due for due, _ in self.dues(since, below)), default=None)

    def deepest_due(self, now: float, since: float, below: Rung) -> Rung | None:
        """The deepest rung due by `now`: a timer that fires late skips the ones between."""
        return max((rung for due, rung in self.dues(since, below) if now >= due), default=None)
