"""Counts what the request path reports; the one face of metrics the proxy sees. Integers only, no SDK (design D3)."""

from __future__ import annotations

from queueproxy.metrics.histogram import DURATIONS, RECENT_MAX, Histogram
from queueproxy.metrics.window import Window


class Recorder:
    """window feeds the autoscaler; invocations by status and refusals by reason feed people.

    unlogged: lines of the request log that nobody could be made to read. bounds: of the durations, in seconds.
    extension_failures: by name and hook.
    """

    __slots__ = ("arrived", "bounds", "extension_failures", "invocations", "refused", "retries", "unlogged", "window")

    def __init__(self, window: Window) -> None:
        self.window = window
        self.arrived = window.arrived  # bound once: called for every request
        self.bounds: tuple[float, ...] = DURATIONS
        self.invocations: dict[int, Histogram] = {}
        self.refused: dict[str, int] = {}
        self.retries = 0
        self.unlogged = 0
        self.extension_failures: dict[tuple[str, str], int] = {}

    def __repr__(self) -> str:
        return f"<Recorder {self.window!r} statuses={sorted(self.invocations)}>"

    def invoked(self, status: int, took: float) -> None:
        """One request that reached the app's side of the limiter ended. took: seconds (kn.serving.invocation)."""
        histogram = self.invocations.get(status)
        if histogram is None:
            histogram = self.invocations[status] = Histogram(self.bounds)  # at most 1,000: statuses have three digits
        recent = histogram.recent
        recent.append(took)
        if len(recent) >= RECENT_MAX:
            histogram.fold()

    def refuse(self, reason: str) -> None:
        """A request or message that did not reach the app. reason: one of the fixed words of errors.Failure.kind."""
        self.refused[reason] = self.refused.get(reason, 0) + 1
