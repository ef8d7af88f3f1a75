"""Asks at a fixed rate, whoever answers: what a latency is worth when nobody is saturated.

In a closed loop N connections queue behind each other, and the slower of two proxies has the longer queue: its p99
says again what its CPU per request said. Here every subject gets the same requests per second. A request whose
predecessor on the same connection is late counts from when it was due, so a stall is not forgiven.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter_ns
from typing import TYPE_CHECKING

from queueproxy.bench.asker import Asker

if TYPE_CHECKING:
    from queueproxy.bench.load import Load

__all__ = ["PacedAsker", "paced"]


def paced(rate: int) -> Callable[[Load], PacedAsker]:
    """A factory of connections that together ask `rate` times a second, evenly spread."""
    made = 0

    def make(load: Load) -> PacedAsker:
        nonlocal made
        place = made % load.connections / load.connections
        made += 1
        return PacedAsker(load, load.connections / rate, place)

    return make


class PacedAsker(Asker):
    """One connection. `period` is in seconds; the first request is due `place` of it after the connection was made."""

    __slots__ = ("_due_ns", "_period_ns", "_timer")

    def __init__(self, load: Load, period: float, place: float) -> None:
        super().__init__(load)
        self._period_ns = int(period * 1e9)
        self._due_ns = int(place * self._period_ns)
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.answering = False
        self._due_ns += perf_counter_ns()
        self._wait(perf_counter_ns())

    def next(self, now_ns: int) -> None:
        self._due_ns += self._period_ns
        if self._due_ns <= now_ns:
            self.ask()
            self.asked_ns = self._due_ns  # the last answer was late: this request has waited for it
        else:
            self._wait(now_ns)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _wait(self, now_ns: int) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later((self._due_ns - now_ns) / 1e9, self._asks)

    def _asks(self) -> None:
        self._timer = None
        if perf_counter_ns() >= self.load.until_ns:
            self.transport.close()
        else:
            self.ask()
