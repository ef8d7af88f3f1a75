"""Counts sleep: states, transitions, how long freezing, thawing and waiting took (design 6, FZ-100).

Fed with words and seconds by whoever watches the gate, so that this room need not know the freeze room. Reasons are
bounded: words that are not on the list count as "other", because a label may not grow with what went wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from queueproxy.metrics.histogram import THAWS, Histogram

STATES: Final = ("running", "waking", "throttled", "frozen")
REASONS: Final = frozenset((
    "idle", "request", "first bytes", "accept", "knock", "deep check", "terminating", "app restarted", "not ready",
    "thawed", "enabled", "disabled", "shadow", "freeze failed", "configured", "found frozen", "found throttled",
))  # fmt: skip


class PauseCounts:
    """state is one of STATES; seconds per state are complete up to `since`."""

    __slots__ = (
        "durations", "freezer_faults", "freezer_up", "idle_cpu_seconds", "knocks", "probe_answers", "seconds", "shadow",
        "since", "state", "transitions", "waits",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self.state = "running"
        self.since = now
        self.seconds = dict.fromkeys(STATES, 0.0)
        self.transitions: dict[tuple[str, str, str, str], int] = {}  # from, to, reason, outcome
        self.durations: dict[str, Histogram] = {}  # by op
        self.waits: dict[str, Histogram] = {}  # by phase
        self.shadow: dict[str, int] = {}  # by what would have been done
        self.probe_answers: dict[tuple[str, str], int] = {}  # kind, while
        self.idle_cpu_seconds = 0.0
        self.freezer_up: bool | None = None  # None: no freezer is wanted
        self.freezer_faults: Callable[[], dict[str, int]] = dict  # ever, by kind
        self.knocks: Callable[[], int] = int

    def __repr__(self) -> str:
        return f"<PauseCounts {self.state} transitions={sum(self.transitions.values())}>"

    def moved(self, origin: str, to: str, reason: str, outcome: str, now: float) -> None:
        """A transition; to is one of STATES. outcome: "ok" or "failed"; a failed one leaves the state as it is."""
        key = (origin, to, reason if reason in REASONS else "other", outcome)
        self.transitions[key] = self.transitions.get(key, 0) + 1
        if outcome == "ok":
            self.seconds[self.state] += now - self.since
            self.state, self.since = to, now

    def timed(self, op: str, took: float) -> None:
        """A freeze, throttle or thaw was confirmed after `took` seconds."""
        self._observe(self.durations, op, took)

    def waited(self, phase: str, took: float) -> None:
        """A request waited for a thaw: phase "total", or "kernel" for the confirmed thaw alone."""
        self._observe(self.waits, phase, took)

    def would(self, what: str) -> None:
        """Shadow mode: this would have been done (FZ-113)."""
        self.shadow[what] = self.shadow.get(what, 0) + 1

    def answered(self, kind: str, while_: str) -> None:
        """A probe was answered; while_: "awake" or "asleep"."""
        self.probe_answers[kind, while_] = self.probe_answers.get((kind, while_), 0) + 1

    def in_state(self, state: str, now: float) -> float:
        """Seconds spent in `state` up to now."""
        return self.seconds[state] + (now - self.since if state == self.state else 0.0)

    def _observe(self, histograms: dict[str, Histogram], label: str, took: float) -> None:
        histogram = histograms.get(label)
        if histogram is None:
            histogram = histograms[label] = Histogram(THAWS)
        histogram.observe(took)
