"""Counts what the idle policy learns from: idle gaps, freeze/thaw cycles and failed freezes.

Three small pure memories, each answering one question for `policy.py`:

* `AdaptiveGrace`: how long should an idle app be left running before it sleeps (FZ-025)?
* `FlapLimiter`: how much longer, because it went to sleep and back too often of late (FZ-024)?
* `FreezeBreaker`: until when should freezing not be tried at all, because it keeps failing (FZ-066)?

The adaptive grace is the ski-rental problem with a memory. Staying awake through a gap of x seconds costs x;
sleeping after g seconds costs g plus one cycle, where a cycle is worth `wait_weight` seconds of idle running per
second a request waits for the thaw. Over a bounded window of recent gaps the sum of both is piecewise linear in g
and its minimum lies at one of the gaps (or at the floor), so trying each of them is exact. Gaps below the floor
cost the same whatever g is: they are not remembered, and a burst of a thousand short ones cannot push the telling
ones out of the window.

Nothing here reads a clock, sorts on the request path (a fit happens once in `REFIT_EVERY` remembered gaps) or grows.
"""

from bisect import bisect_right
from collections import deque
from itertools import accumulate
from math import ceil, log2

__all__ = ["AdaptiveGrace", "FlapLimiter", "FreezeBreaker"]

GAPS_KEPT = 128  # about two minutes of memory at the floor's pace; a fit over it takes 80 us
REFIT_EVERY = 16  # one fit per 16 gaps costs 5 us per remembered gap, none per short one
FIRST_FIT = 4  # fewer gaps than this say nothing; the configured grace stands
SLACK = 1.05  # a grace exactly at the longest gap seen loses to the next one that is a hair longer
THAW_GUESS_S = 0.0005  # before the first measured thaw: the wake budget of the design, p50
FIRST_STEP_S = 0.25  # what is doubled first when the configured grace is shorter: the minimum running time


class AdaptiveGrace:
    """The grace that would have been cheapest over the recent gaps, never below the floor."""

    __slots__ = ("_cap", "_floor", "_gaps", "_thaw_s", "_unseen", "_weight", "grace")

    def __init__(self, start: float, floor: float, cap: float, wait_weight: float) -> None:
        self.grace = max(floor, start)
        self._floor = floor
        self._cap = max(floor, cap)
        self._weight = wait_weight
        self._thaw_s = THAW_GUESS_S
        self._gaps: deque[float] = deque(maxlen=GAPS_KEPT)
        self._unseen = 0

    def __repr__(self) -> str:
        return f"<AdaptiveGrace {self.grace:.3g} s from {len(self._gaps)} gaps, thaw {self._thaw_s * 1000:.3g} ms>"

    @property
    def cycle_cost(self) -> float:
        """What one sleep and wake is worth, in seconds of idle running."""
        return self._weight * self._thaw_s

    def gap_seen(self, gap: float) -> None:
        """An idle stretch ended by a request after `gap` seconds."""
        if gap <= self._floor:
            return
        self._gaps.append(gap)
        self._unseen += 1
        if self._unseen >= REFIT_EVERY or FIRST_FIT <= len(self._gaps) < REFIT_EVERY:
            self._unseen = 0
            self.grace = self._cheapest()

    def thaw_seen(self, took: float) -> None:
        """A thaw was confirmed `took` seconds after it was asked for; one slow thaw moves the estimate by a fifth."""
        self._thaw_s += (took - self._thaw_s) / 5

    def _cheapest(self) -> float:
        gaps = sorted(self._gaps)
        total = [0.0, *accumulate(gaps)]
        best, best_cost = self._floor, len(gaps) * (self._floor + self.cycle_cost)
        for gap in gaps:
            grace = min(gap * SLACK, self._cap)
            within = bisect_right(gaps, grace)
            cost = total[within] + (len(gaps) - within) * (grace + self.cycle_cost)
            if cost < best_cost:
                best, best_cost = grace, cost
        return best


class FlapLimiter:
    """Doubles the grace each time more than `limit` cycles fall into one window; gives one doubling back per calm
    window."""

    __slots__ = ("_cap", "_cycles", "_level", "_raised_at", "_top", "_window")

    def __init__(self, limit: int, window: float, cap: float) -> None:
        self._window = window
        self._cap = cap
        self._cycles: deque[float] = deque(maxlen=limit + 1)
        # A level that no longer lengthens anything would only take longer to decay.
        self._top = max(0, ceil(log2(cap / FIRST_STEP_S))) if cap > 0 else 0
        self._level = 0
        self._raised_at = 0.0

    def __repr__(self) -> str:
        return f"<FlapLimiter level={self._level} cycles={len(self._cycles)}>"

    def level(self, now: float) -> int:
        """How many doublings stand at `now`."""
        if not self._level:
            return 0
        return max(0, self._level - max(0, int((now - self._raised_at) / self._window)))

    def cycled(self, now: float) -> None:
        """A request woke the app from sleep."""
        cycles = self._cycles
        cycles.append(now)
        if len(cycles) == cycles.maxlen and now - cycles[0] <= self._window:
            self._level = min(self._top, self.level(now) + 1)
            self._raised_at = now
            cycles.clear()

    def stretch(self, grace: float, now: float) -> float:
        """The grace with the doublings of `now` in it: capped, but never shorter than what was asked for."""
        level = self.level(now)
        if not level:
            return grace
        return max(grace, min(self._cap, max(grace, FIRST_STEP_S) * 2.0**level))


class FreezeBreaker:
    """After `limit` freezes failed in a row, holds off for a back-off that doubles with each further failure."""

    __slots__ = ("_backoff", "_cap", "_limit", "_pause", "failures", "until")

    def __init__(self, limit: int, backoff: float, cap: float) -> None:
        self.failures = 0
        self.until = float("-inf")  # freezing is suspended before this instant
        self._limit = limit
        self._backoff = backoff
        self._cap = cap
        self._pause = min(backoff, cap)

    def __repr__(self) -> str:
        return f"<FreezeBreaker failures={self.failures} until={self.until:g}>"

    def failed(self, now: float) -> None:
        self.failures += 1
        if self.failures >= self._limit:
            self.until = now + self._pause
            self._pause = min(self._cap, self._pause * 2)

    def succeeded(self) -> None:
        self.failures = 0
        self._pause = min(self._backoff, self._cap)
