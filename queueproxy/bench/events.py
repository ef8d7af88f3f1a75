"""Decodes what `queueproxy run --json` and its metrics tell about sleep."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

__all__ = ["Moved", "moved", "phase_means_ms"]

_SAMPLE = re.compile(r'^kn_serving_thaw_wait_seconds_(sum|count)\{[^}]*phase="([^"]+)"[^}]*\}\s+(\S+)', re.MULTILINE)


class Moved(NamedTuple):
    """A change of state, its name in lower case; `took_us` where the event says so."""

    to: str
    took_us: float | None


def moved(line: str) -> Moved | None:
    """The change of state in one line, or None when it tells something else."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or not isinstance(event.get("to"), str):
        return None
    took = event.get("took_us")
    return Moved(event["to"].lower(), float(took) if isinstance(took, int | float) else None)


def phase_means_ms(exposition: str) -> dict[str, float]:
    """Mean wait per phase of a wake, from kn_serving_thaw_wait_seconds (design section 6)."""
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}
    for kind, phase, value in _SAMPLE.findall(exposition):
        into = sums if kind == "sum" else counts
        into[phase] = into.get(phase, 0.0) + float(value)
    return {phase: sums[phase] / count * 1e3 for phase, count in counts.items() if count and phase in sums}
