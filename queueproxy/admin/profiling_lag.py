"""Counts how late the event loop is: every ten milliseconds it is asked to call, and asked what time it is then.

Lateness is what every request waits for whatever runs before it. Both loops keep timers in whole milliseconds, so an
idle process shows up to one millisecond.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

EVERY: Final = 0.010  # seconds; ten times what the loops' timers can tell apart
_QUANTILES: Final = ((50, "p50"), (90, "p90"), (99, "p99"))


def summary(late: Sequence[float]) -> str:
    """Quantiles of the latenesses in milliseconds, by nearest rank."""
    if not late:
        return "no measurement\n"
    ordered = sorted(late)
    lines = [f"measurements {len(ordered)}\n"]
    for percent, name in _QUANTILES:
        rank = -(-len(ordered) * percent // 100)
        lines.append(f"{name} {ordered[rank - 1] * 1e3:.2f} ms\n")
    lines.append(f"max {ordered[-1] * 1e3:.2f} ms\n")
    return "".join(lines)


class LagMeter:
    """start, stop, then late: seconds, in the order they were measured."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        self._loop = loop
        self._clock = clock
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.late: list[float] = []

    def __repr__(self) -> str:
        return f"<LagMeter {len(self.late)} measurements>"

    def start(self) -> None:
        self._due = self._clock() + EVERY
        self._timer = self._loop.call_later(EVERY, self._called)

    def _called(self) -> None:
        self.late.append(max(0.0, self._clock() - self._due))
        self.start()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
