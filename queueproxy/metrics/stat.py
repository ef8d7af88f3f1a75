"""Decides what the autoscaler reads on 9090: the last closed window as a `Stat` (contract 5.1, 5.2, QP-135…141).

The value is made by the ticker, not by the scrape: two scrapes within a second return the same bytes, and before the
first tick there is only the pod's name.
"""

from __future__ import annotations

from queueproxy.codec.protobuf import encode_stat
from queueproxy.metrics.window import Window

PERIOD = 1.0  # seconds; the autoscaler expects per-second rates from 1 s windows (contract 5.1)


class StatReport:
    """pod_name: always $SERVING_POD. `encoded` is what 9090 answers."""

    __slots__ = ("_pod_name", "_started_at", "_window", "encoded")

    def __init__(self, pod_name: str, window: Window, now: float) -> None:
        self._pod_name = pod_name
        self._window = window
        self._started_at = now
        self.encoded = encode_stat(pod_name)

    def __repr__(self) -> str:
        return f"<StatReport {self._pod_name} {len(self.encoded)} bytes>"

    def tick(self, now: float) -> None:
        """Closes the window and publishes it."""
        report = self._window.close(now)
        self.encoded = encode_stat(
            self._pod_name,
            report.average,
            report.average_proxied,
            report.requests / PERIOD,
            report.proxied_requests / PERIOD,
            now - self._started_at,
        )
