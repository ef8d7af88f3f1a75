"""Decodes what `queueproxy run` is asked to do: the flags as values, and durations as people write them.

Durations follow Go's spelling, the one Knative's annotations use: numbers with units, `500ms`, `1s`, `1m30s`; a bare
number is seconds; `off` is never.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from signal import Signals

__all__ = [
    "ENDING",
    "FREEZE",
    "MODES",
    "PASSED_ON",
    "SHADOW",
    "THROTTLE",
    "WAYS",
    "RunSettings",
    "duration",
    "duration_or_off",
]

FREEZE, THROTTLE, SHADOW = MODES = ("freeze", "throttle", "shadow")
AUTO, V2, V1, SIGNAL = WAYS = ("auto", "v2", "v1", "signal")

ENDING = (Signals.SIGTERM, Signals.SIGINT, Signals.SIGHUP)
# Signals the app may want and we have no use for.
PASSED_ON = (Signals.SIGUSR1, Signals.SIGUSR2)

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_BARE = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")


def duration(text: str) -> float:
    """Seconds of a duration such as 250ms, 1s, 1m30s or 2."""
    given = text.strip()
    if _BARE.fullmatch(given):
        return float(given)
    seconds, at = 0.0, 0
    while at < len(given):
        part = _PART.match(given, at)
        if part is None:
            raise ValueError(f"not a duration: {text!r} (write 500ms, 1s or 1m30s)")
        seconds += float(part[1]) * _UNITS[part[2]]
        at = part.end()
    if not given:
        raise ValueError("not a duration: it is empty (write 500ms, 1s or 1m30s)")
    return seconds


def duration_or_off(text: str) -> float | None:
    """A duration, or None for `off`."""
    return None if text.strip() == "off" else duration(text)


@dataclass(frozen=True, slots=True)
class RunSettings:
    """One `queueproxy run`. Durations in seconds."""

    command: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8012
    app_port: int = 0  # 0: a free one
    mode: str = FREEZE
    cgroup: str = AUTO
    freeze_after: float | None = 1.0
    throttle_after: float | None = None
    min_uptime: float = 0.0
    ready_path: str | None = None
    start_timeout: float = 30.0
    grace: float = 10.0
    metrics_port: int = 9091  # 0: none
    json: bool = False
    verbose: bool = False

    @property
    def needs_cpu(self) -> bool:
        """Whether a rung of the ladder squeezes the CPU, which wants a controller."""
        return self.mode == THROTTLE or self.throttle_after is not None
