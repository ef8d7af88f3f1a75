"""Counts what a gate does into words and seconds: the Observer between the freeze policy and the metrics room."""

from __future__ import annotations

from typing import Final, Protocol

from queueproxy.freeze.policy import Ask, Moved, Rung, State

STATE_NAMES: Final = {
    State.DISABLED: "running",
    State.AWAKE: "running",
    State.GRACE: "running",
    State.THROTTLED: "throttled",
    State.FROZEN: "frozen",
    State.WAKING: "waking",
    State.TERMINATING: "running",
}
OPS: Final = {Rung.RUNNING: "thaw", Rung.THROTTLED: "throttle", Rung.FROZEN: "freeze"}


def _word(reason: str) -> str:
    """A label of the policy's words: "idle for 2 s" is "idle", "freeze failed: EIO" is "freeze failed"."""
    return reason.partition(":")[0].partition(" for ")[0]


class Counts(Protocol):
    """metrics.pause.PauseCounts, as far as it is used here."""

    def moved(self, origin: str, to: str, reason: str, outcome: str, now: float) -> None: ...
    def timed(self, op: str, took: float) -> None: ...
    def waited(self, phase: str, took: float) -> None: ...
    def would(self, what: str) -> None: ...


class GateWatch:
    """shadow: asks count as what would have been done, and the app's state stays "running" (FZ-113)."""

    __slots__ = ("_counts", "shadow")

    def __init__(self, counts: Counts, *, shadow: bool = False) -> None:
        self._counts = counts
        self.shadow = shadow

    def __repr__(self) -> str:
        return f"<GateWatch shadow={self.shadow}>"

    def moved(self, moved: Moved, now: float) -> None:
        origin, to = STATE_NAMES[moved.origin], STATE_NAMES[moved.to]
        if not self.shadow and origin != to:
            self._counts.moved(origin, to, _word(moved.reason), "ok", now)

    def asked(self, ask: Ask, now: float) -> None:
        if self.shadow:
            self._counts.would(OPS[ask.rung])

    def answered(self, ask: Ask, rung: Rung | None, detail: str, took: float, now: float) -> None:
        if self.shadow:
            return
        if rung is None:
            to = "running" if ask.rung is Rung.RUNNING else ask.rung.name.lower()
            self._counts.moved("waking" if to == "running" else "running", to, _word(ask.reason), "failed", now)
            return
        self._counts.timed(OPS[ask.rung], took)
        if rung is Rung.RUNNING:
            self._counts.waited("kernel", took)

    def waited(self, waited_for: float) -> None:
        if not self.shadow:
            self._counts.waited("total", waited_for)
