"""Runs the freezer's rounds: looks at sleeping pods for a stop signal twice a second, at waking ones for their CPU use.

One timer, ten short rounds a second, each over a part of the pods, so that 250 of them never hold up a thaw for longer
than a dozen looks take (some 20 us each). A stop signal is therefore seen within half a second (FZ-055).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from queueproxy.log import Log

__all__ = ["Patrol"]

EVERY: Final = 0.1
SLEEPERS_IN: Final = 5  # rounds until every sleeping pod was looked at: half a second
WAKERS_IN: Final = 10  # the same of waking ones: a second


class Watched(Protocol):
    """What is looked at."""

    def sleepers(self) -> list[str]: ...
    def wakers(self) -> list[str]: ...
    def look_for_stop(self, uid: str) -> None: ...
    def look_at_cpu(self, uid: str) -> None: ...


class Patrol:
    """Starts at once; ends with `close`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, watched: Watched, log: Log, *, every: float = EVERY) -> None:
        self._loop = loop
        self._watched = watched
        self._log = log
        self._every = every
        self._round = 0
        self._timer = loop.call_later(every, self._go)

    def __repr__(self) -> str:
        return f"<Patrol round {self._round}>"

    def close(self) -> None:
        self._timer.cancel()

    def _go(self) -> None:
        self._timer = self._loop.call_later(self._every, self._go)
        self._round += 1
        watched = self._watched
        for uid in watched.sleepers()[self._round % SLEEPERS_IN :: SLEEPERS_IN]:
            self._look(watched.look_for_stop, uid)
        for uid in watched.wakers()[self._round % WAKERS_IN :: WAKERS_IN]:
            self._look(watched.look_at_cpu, uid)

    def _look(self, look: Callable[[str], None], uid: str) -> None:
        try:
            look(uid)
        except Exception as error:  # one pod's trouble must not end the rounds of the others
            self._log.error("a look at a pod failed", pod=uid, error=repr(error))
