"""Counts durations of requests in the contract's buckets; the arithmetic is shared with the freezer's metrics."""

from __future__ import annotations

from typing import Final

from queueproxy.buckets import RECENT_MAX, THAWS, Histogram

__all__ = ["DURATIONS", "RECENT_MAX", "THAWS", "Histogram"]

# Seconds. OpenTelemetry's HTTP durations, which Knative uses for invocations (contract 5.4, table D).
DURATIONS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
