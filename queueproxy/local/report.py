"""Writes what happens in a run for whoever watches: log lines, JSON events, or a status line; and the summary at the
end.

One fact, one call; the form is chosen once. People get plain lines on stderr (and on a terminal the changes of state
in the status line instead of one line each). Machines get one JSON object per line on stdout and nothing else there.
Times in events are seconds since the start, `took_us` is from the question to the kernel's confirmation.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from queueproxy.clock import monotonic
from queueproxy.local.tally import Tally
from queueproxy.log import PLAIN, Level, LineWriter, Log

__all__ = ["Report", "seconds", "summary_of"]


class Report:
    """The one mouth of a run."""

    __slots__ = ("_began_at", "_json", "_log", "_quiet_states", "changed")

    def __init__(self, *, as_json: bool, verbose: bool, terminal: bool) -> None:
        self._began_at = monotonic()
        self._json = LineWriter(1) if as_json else None
        self._log = Log(LineWriter(2), level=Level.DEBUG if verbose else Level.INFO, format=PLAIN)
        # On a terminal the status line tells the state; a line for each change would only scroll the app's output away.
        self._quiet_states = terminal and not verbose
        self.changed: Callable[[], None] = _nothing

    def __repr__(self) -> str:
        return f"<Report {'json' if self._json is not None else 'plain'}>"

    @property
    def log(self) -> Log:
        return self._log

    @property
    def began_at(self) -> float:
        """The instant `at_s` counts from, on the clock that all processes of a machine share."""
        return self._began_at

    def event(self, event: str, message: str, /, **fields: object) -> None:
        """Something that happens once or rarely."""
        if self._json is not None:
            self._write(event, fields)
        else:
            self._log.info(message, **fields)
        self.changed()

    def state(self, origin: str, to: str, reason: str, generation: int, took: float, now: float) -> None:
        """The app is on another rung, confirmed at `now`: the event tells that instant, not the one of writing."""
        took_us = round(took * 1e6)
        if self._json is not None:
            fields = {"from": origin, "to": to, "reason": reason, "generation": generation, "took_us": took_us}
            self._write("state", fields, now)
        elif not self._quiet_states:
            words = {"frozen": "asleep", "throttled": "throttled", "running": "awake"}.get(to, to)
            self._log.info(words, reason=reason, generation=generation, took=f"{took_us / 1000:.2f}ms")
        self.changed()

    def problem(self, message: str, /, **fields: object) -> None:
        """Something people should know, whatever the form."""
        if self._json is not None:
            self._write("problem", {"message": message, **fields})
        self._log.warning(message, **fields)

    def fatal(self, message: str, /) -> None:
        if self._json is not None:
            self._write("fatal", {"message": message})
        self._log.error(message)

    def summary(self, facts: dict[str, object]) -> None:
        if self._json is not None:
            self._write("summary", facts)
            return
        self._log.info(_summary_line(facts))

    def close(self) -> None:
        if self._json is not None:
            self._json.flush()
        self._log.close()

    def _write(self, event: str, fields: dict[str, object], now: float | None = None) -> None:
        assert self._json is not None
        at = round((monotonic() if now is None else now) - self._began_at, 6)
        line = json.dumps({"event": event, "at_s": at, **fields}, separators=(",", ":"), ensure_ascii=False)
        self._json.write(line.encode("utf-8", "backslashreplace") + b"\n")


def summary_of(tally: Tally, now: float, *, requests: int, exit_status: int, mechanism: str) -> dict[str, object]:
    """The run in figures."""
    asleep_for = tally.in_state("frozen", now)
    saved = tally.cpu_saved(asleep_for)
    p50, p99 = tally.took(0.5), tally.took(0.99)
    return {
        "exit_status": exit_status,
        "mechanism": mechanism,
        "lasted_s": round(tally.lasted(now), 3),
        "asleep_s": round(asleep_for, 3),
        "throttled_s": round(tally.in_state("throttled", now), 3),
        "slept": tally.slept,
        "wakes": tally.wakes,
        "wake_p50_us": None if p50 is None else round(p50 * 1e6),
        "wake_p99_us": None if p99 is None else round(p99 * 1e6),
        "requests": requests,
        "idle_cpu_share": None if tally.idle_rate is None else round(tally.idle_rate, 5),
        "cpu_saved_s_estimate": None if saved is None else round(saved, 3),
    }


def seconds(for_: float) -> str:
    """A time as people say it: 0.3 s, 12 s, 3 m 20 s, 2 h 5 m."""
    if for_ < 10:
        return f"{for_:.1f} s"
    whole = int(for_)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} m"


def status_text(tally: Tally, now: float, *, in_flight: int, since: str, note: str) -> str:
    """The status line: state, in flight, wakes, time asleep, CPU saved."""
    words = {"frozen": "asleep", "throttled": "throttled", "running": "awake"}.get(tally.state, tally.state)
    asleep_for = tally.in_state("frozen", now)
    parts = [f"{words} since {since}" + (f" ({note})" if note else ""), f"{in_flight} in flight"]
    p50 = tally.took(0.5)
    parts.append(f"{tally.wakes} wakes" + ("" if p50 is None else f", p50 {p50 * 1000:.2f} ms"))
    share = asleep_for / tally.lasted(now) if tally.lasted(now) > 0 else 0.0
    parts.append(f"asleep {seconds(asleep_for)} ({share:.0%})")
    saved = tally.cpu_saved(asleep_for)
    parts.append("CPU saved ≈ ?" if saved is None else f"CPU saved ≈ {seconds(saved)}")
    return " queueproxy: " + " · ".join(parts) + " "


def _summary_line(facts: dict[str, object]) -> str:
    lasted, asleep_for = float(str(facts["lasted_s"])), float(str(facts["asleep_s"]))
    share = asleep_for / lasted if lasted else 0.0
    line = f"served {facts['requests']} requests in {seconds(lasted)}, asleep {seconds(asleep_for)} ({share:.0%})"
    line += f", {facts['wakes']} wakes"
    if facts["wake_p50_us"] is not None:
        line += (
            f" (p50 {int(str(facts['wake_p50_us'])) / 1000:.2f} ms, p99 {int(str(facts['wake_p99_us'])) / 1000:.2f} ms)"
        )
    saved = facts["cpu_saved_s_estimate"]
    return line + ("" if saved is None else f", CPU saved ≈ {float(str(saved)):.2f} s")


def _nothing() -> None:
    pass
