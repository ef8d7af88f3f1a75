"""Runs a slow look at the app's CPU use while it is awake, to learn what being awake and idle costs.

Two reads a second of one counter while the app runs, none while it sleeps. A stretch between two looks counts only
when no request was there at either end and none came or went between: then whatever was used is what sleep saves.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable

from queueproxy.clock import monotonic

__all__ = ["IdleCpu"]

LOOK_EVERY = 0.5
FIRST_LOOK_AFTER = 0.05


class IdleCpu:
    """Feeds `idled(cpu seconds, seconds)` from `used()` (microseconds, None when unknown) and `requests()` (in
    flight, ever begun)."""

    __slots__ = ("_at", "_every", "_idled", "_loop", "_requests", "_seen", "_timer", "_used", "_was")

    def __init__(
        self,
        loop: AbstractEventLoop,
        used: Callable[[], int | None],
        requests: Callable[[], tuple[int, int]],
        idled: Callable[[float, float], None],
        *,
        every: float = LOOK_EVERY,
    ) -> None:
        self._loop = loop
        self._used = used
        self._requests = requests
        self._idled = idled
        self._every = every
        self._timer: TimerHandle | None = None
        self._was: int | None = None
        self._seen = 0
        self._at = 0.0

    def __repr__(self) -> str:
        return f"<IdleCpu {'looking' if self._timer is not None else 'resting'}>"

    def start(self) -> None:
        """The app runs. The first look comes a little later: now a request is waiting to be passed on."""
        if self._timer is None:
            self._was = None
            self._timer = self._loop.call_later(min(FIRST_LOOK_AFTER, self._every), self._look)

    def stop(self) -> None:
        """The app is about to sleep: one last look, then rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._measure()
            self._timer = None
            self._was = None

    def _look(self) -> None:
        self._measure()
        self._timer = self._loop.call_later(self._every, self._look)

    def _measure(self) -> None:
        now, used = monotonic(), self._used()
        in_flight, begun = self._requests()
        if used is not None and self._was is not None and not in_flight and begun == self._seen:
            self._idled((used - self._was) / 1e6, now - self._at)
        self._was = None if in_flight else used
        self._seen, self._at = begun, now
