"""Counts one run: where the time went, how often the app was woken and how long that took, and what CPU the sleep has
saved.

Fed with states as the policy enters them and with `now`. The saving is an estimate and is called one: the app's CPU
use while idle and awake, measured from its cgroup between the start of an idle period and the moment sleep is asked
for, times the time asleep. An app that has never been watched idle has saved None.
"""

from __future__ import annotations

from collections import deque

__all__ = ["Tally"]

_KEPT = 1000  # wake times kept for the percentiles: the latest, 8 kB


class Tally:
    """Times, counts and the estimate of one run."""

    __slots__ = ("_began_at", "_idle_cpu", "_idle_for", "_since", "_took", "_was", "seconds", "slept", "wakes")

    def __init__(self, state: str, now: float) -> None:
        self._began_at = now
        self._was = state
        self._since = now
        self.seconds: dict[str, float] = {}
        self.wakes = 0
        self.slept = 0
        self._took: deque[float] = deque(maxlen=_KEPT)
        self._idle_cpu = 0.0
        self._idle_for = 0.0

    def __repr__(self) -> str:
        return f"<Tally {self._was} slept={self.slept} wakes={self.wakes}>"

    @property
    def state(self) -> str:
        return self._was

    @property
    def since(self) -> float:
        return self._since

    def moved(self, state: str, now: float) -> None:
        """The run entered a state."""
        self.seconds[self._was] = self.seconds.get(self._was, 0.0) + now - self._since
        self._was, self._since = state, now

    def fell_asleep(self) -> None:
        self.slept += 1

    def woke(self, took_for: float) -> None:
        """The app runs again, `took_for` after the wake was asked for."""
        self.wakes += 1
        self._took.append(took_for)

    def idled(self, cpu_for: float, idle_for: float) -> None:
        """The app used `cpu_for` seconds of CPU in `idle_for` seconds awake with nothing to do."""
        self._idle_cpu += max(0.0, cpu_for)
        self._idle_for += max(0.0, idle_for)

    def in_state(self, state: str, now: float) -> float:
        """Seconds spent in a state so far."""
        return self.seconds.get(state, 0.0) + (now - self._since if state == self._was else 0.0)

    def lasted(self, now: float) -> float:
        return now - self._began_at

    def took(self, share: float) -> float | None:
        """The wake time that `share` of the latest wakes did not exceed; None before the first."""
        if not self._took:
            return None
        ordered = sorted(self._took)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    @property
    def idle_rate(self) -> float | None:
        """Seconds of CPU the app uses per second of being awake and idle; None when never measured."""
        return self._idle_cpu / self._idle_for if self._idle_for > 0 else None

    @property
    def idle_cpu(self) -> float:
        """Seconds of CPU seen used while awake and idle."""
        return self._idle_cpu

    def cpu_saved(self, asleep_for: float) -> float | None:
        """Roughly what the app would have used in that time."""
        rate = self.idle_rate
        return None if rate is None else rate * asleep_for
