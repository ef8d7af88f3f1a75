"""The one place that reads clocks. `monotonic()` is seconds; pure modules receive the result as `now`."""

from __future__ import annotations

from time import gmtime, monotonic
from time import time as wall_clock  # noqa: TID251 - the one place

__all__ = ["http_date", "monotonic", "wall_clock"]

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_second = 0
_date = b""


def http_date() -> bytes:
    """Now as an HTTP date (RFC 9110 5.6.7), formatted once a second."""
    global _second, _date
    second = int(wall_clock())
    if second != _second:
        t = gmtime(second)
        clock = f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}"
        _date = f"{_DAYS[t.tm_wday]}, {t.tm_mday:02d} {_MONTHS[t.tm_mon - 1]} {t.tm_year} {clock} GMT".encode()
        _second = second
    return _date
