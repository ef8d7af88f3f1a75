"""Counts requests and the time they spent, for the autoscaler: levels, integrals, one window (contract 5.1).

Before every change the levels are integrated over the time since the last one; `close(now)` returns the averages and
starts a new window with the same levels. Time that goes backwards is ignored (QP-134).
"""

from __future__ import annotations

from typing import NamedTuple


class Report(NamedTuple):
    """One window. Averages are requests (time-weighted), counts are requests in the window."""

    average: float
    average_proxied: float
    requests: int
    proxied_requests: int


class Window:
    """concurrency and proxied are the current levels; waiting requests are part of them (QP-133)."""

    __slots__ = (
        "_area", "_area_proxied", "_changed_at", "_elapsed", "concurrency", "count", "proxied", "proxied_count",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self._changed_at = now
        self.concurrency = 0
        self.proxied = 0
        self._reset()

    def _reset(self) -> None:
        self._area = 0.0
        self._area_proxied = 0.0
        self._elapsed = 0.0
        self.count = 0
        self.proxied_count = 0

    def __repr__(self) -> str:
        return f"<Window concurrency={self.concurrency} proxied={self.proxied} count={self.count}>"

    def arrived(self, now: float, proxied: bool) -> None:
        """A request came; proxied: the activator has counted it already (QP-131)."""
        passed = now - self._changed_at
        if passed > 0:
            self._elapsed += passed
            self._area += passed * self.concurrency
            self._changed_at = now
            if self.proxied:
                self._area_proxied += passed * self.proxied
        self.concurrency += 1
        self.count += 1
        if proxied:
            self.proxied += 1
            self.proxied_count += 1

    def left(self, now: float, proxied: bool) -> None:
        """That request ended, however it ended (QP-132)."""
        passed = now - self._changed_at
        if passed > 0:
            self._elapsed += passed
            self._area += passed * self.concurrency
            self._changed_at = now
            if self.proxied:
                self._area_proxied += passed * self.proxied
        self.concurrency -= 1
        if proxied:
            self.proxied -= 1

    def close(self, now: float) -> Report:
        """Ends the window: its averages and counts. Averages are 0 when no time passed."""
        passed = now - self._changed_at
        if passed > 0:
            self._elapsed += passed
            self._area += passed * self.concurrency
            self._area_proxied += passed * self.proxied
            self._changed_at = now
        elapsed = self._elapsed
        report = Report(
            self._area / elapsed if elapsed else 0.0,
            self._area_proxied / elapsed if elapsed else 0.0,
            self.count,
            self.proxied_count,
        )
        self._reset()
        return report
