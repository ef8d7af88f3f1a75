"""Decides when to look for knocks: learns the periods of probes and looks often when one is due.

Theory of operation
-------------------
A kubelet probes with a fixed period, several probes interleave, and each must be answered within its timeout: one
second by default. Looking every `COARSE` seconds meets that whatever comes. What is learnt only makes the answer
quicker: around the moment at which a probe is expected, the look is taken every `FINE` seconds.

A *beat* is one probe: its period, the median of the last eight intervals, and when it was heard last. A knock is known
only to have come since the look before, so each instant carries that doubt, and the window of a beat is its doubt plus
what kubelets jitter. A knock inside a beat's window belongs to the beat; one that belongs to none is kept, and when
three such are evenly spaced they are a new beat. A beat that was not heard where it was looked for goes on silently
(the app may have been awake and taken the connection), a few times; then it is forgotten.
"""

from __future__ import annotations

from collections import deque
from math import ceil, inf
from typing import Final

__all__ = ["COARSE", "FINE", "Rhythm"]

COARSE: Final = 0.25  # seconds: with a timeout of 1 s that leaves 0.75 s for the thaw and the app's answer
FINE: Final = 0.03  # a look costs 0.1 ms with cold caches, and a second of probes has few to spare (design 7: 0.2 %)
_JITTER: Final = 0.03  # a kubelet's, on an idle node: how late it may be
_LEAD: Final = 0.005  # how early; whoever is earlier waits at the first look
_SHORTEST, _LONGEST = 0.5, 75.0  # periods worth learning: kubelets' are whole seconds, 10 by default
_PATIENCE: Final = 6  # beats in a row that may stay silent
_MOST_BEATS, _MOST_STRAYS = 8, 12


class _Beat:
    """One probe."""

    __slots__ = ("doubt", "heard_at", "intervals", "missed", "next_at", "period")

    def __init__(self, period: float, heard_at: float, doubt: float) -> None:
        self.intervals = deque([period], maxlen=8)
        self.period = period
        self.heard_at = heard_at
        self.doubt = doubt
        self.missed = 0
        self.next_at = heard_at + period

    @property
    def opens_at(self) -> float:
        return self.next_at - self.doubt - _LEAD

    @property
    def closes_at(self) -> float:
        return self.next_at + self.doubt + _JITTER

    def heard(self, at: float, doubt: float) -> None:
        """An interval may span silent beats; what it says about one period is divided among them."""
        beats = max(1, round((at - self.heard_at) / self.period))
        self.intervals.append((at - self.heard_at) / beats)
        ordered = sorted(self.intervals)
        middle = len(ordered) // 2
        median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
        self.period = max(_SHORTEST, median)
        self.heard_at, self.doubt, self.missed = at, doubt, 0
        self.next_at = at + self.period

    def passed(self, now: float) -> None:
        """Windows went by without a knock; of a long stretch without any look only one counts as missed."""
        if now > self.closes_at:
            self.missed += 1
            beats = ceil((now - self.closes_at) / self.period)
            self.next_at += beats * self.period


class Rhythm:
    """The beats of one pod."""

    __slots__ = ("_beats", "_looked_at", "_strays")

    def __init__(self) -> None:
        self._beats: list[_Beat] = []
        self._strays: deque[tuple[float, float]] = deque(maxlen=_MOST_STRAYS)
        self._looked_at = -inf

    def __repr__(self) -> str:
        return f"<Rhythm {[round(beat.period, 2) for beat in self._beats]}>"

    @property
    def periods(self) -> list[float]:
        """What was learnt, in seconds."""
        return sorted(beat.period for beat in self._beats)

    def began(self, now: float) -> float:
        """The app fell asleep: nothing knocked so far. Seconds until the first look."""
        self._looked_at = now
        self._expire(now)
        return self._pause(now)

    def looked(self, now: float, knocked: bool) -> float:
        """A look was taken; seconds until the next one."""
        since, self._looked_at = self._looked_at, now
        if knocked:
            doubt = min(COARSE, max(0.0, now - since)) / 2
            self._heard(now - doubt, doubt)
        self._expire(now)
        return self._pause(now)

    def _pause(self, now: float) -> float:
        pause = COARSE
        for beat in self._beats:
            if now >= beat.opens_at:
                return FINE
            pause = min(pause, beat.opens_at - now)
        return max(FINE, pause)

    def _heard(self, at: float, doubt: float) -> None:
        best = min(self._beats, key=lambda beat: abs(beat.next_at - at), default=None)
        if best is not None and abs(best.next_at - at) <= best.doubt + doubt + _JITTER:
            best.heard(at, doubt)
            return
        beat = self._evenly_spaced(at, doubt)
        if beat is None:
            self._strays.append((at, doubt))
        elif len(self._beats) < _MOST_BEATS:
            self._beats.append(beat)

    def _evenly_spaced(self, at: float, doubt: float) -> _Beat | None:
        """This knock and two strays, the newest that fit: a beat; they are strays no longer."""
        strays = list(self._strays)
        for later in reversed(strays):
            step = at - later[0]
            for earlier in strays:
                before = later[0] - earlier[0]
                slack = doubt + 2 * later[1] + earlier[1] + _JITTER
                if before >= _SHORTEST <= step <= _LONGEST and abs(before - step) <= slack:
                    self._strays.remove(later)
                    self._strays.remove(earlier)
                    return _Beat((at - earlier[0]) / 2, at, doubt)
        return None

    def _expire(self, now: float) -> None:
        for beat in self._beats:
            beat.passed(now)
        self._beats = [beat for beat in self._beats if beat.missed <= _PATIENCE]
