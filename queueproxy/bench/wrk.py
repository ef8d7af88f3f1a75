"""Decodes the report of `wrk --latency`, and writes its command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Report", "UnreadableError", "command", "post_script", "read"]

_SCALE_US = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6, "h": 3600e6}
_SUMMARY = re.compile(r"^\s*(\d+) requests in ([\d.]+)(us|ms|s|m|h),", re.MULTILINE)
_PERCENTILE = re.compile(r"^\s*(50|99)%\s+([\d.]+)(us|ms|s|m|h)\s*$", re.MULTILINE)
_SOCKET_ERRORS = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
_BAD_STATUS = re.compile(r"Non-2xx or 3xx responses: (\d+)")


class UnreadableError(ValueError):
    """wrk wrote something this does not know."""


class Report(NamedTuple):
    requests: int
    errors: int
    seconds: float
    p50_us: float
    p99_us: float


def command(
    program: str,
    url: str,
    *,
    connections: int,
    seconds: float,
    script: str | None = None,
    headers: Sequence[str] = (),
) -> list[str]:
    """One thread: the load shares two cores with the origin and the proxy. wrk takes whole seconds only."""
    argv = [program, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency"]
    argv += ["-s", script] if script is not None else []
    for header in headers:
        argv += ["-H", header]
    return [*argv, url]


def post_script(size: int) -> str:
    """Lua that makes wrk send `size` bytes with every request."""
    return f'wrk.method = "POST"\nwrk.body = string.rep("x", {size})\n'


def read(text: str) -> Report:
    summary = _SUMMARY.search(text)
    percentiles = {found[1]: float(found[2]) * _SCALE_US[found[3]] for found in _PERCENTILE.finditer(text)}
    if summary is None or percentiles.keys() != {"50", "99"}:
        raise UnreadableError(f"not a report of wrk --latency: {text[-400:]!r}")
    sockets = _SOCKET_ERRORS.search(text)
    status = _BAD_STATUS.search(text)
    errors = sum(map(int, sockets.groups())) if sockets else 0
    errors += int(status[1]) if status else 0
    seconds = float(summary[2]) * _SCALE_US[summary[3]] / 1e6
    return Report(int(summary[1]), errors, seconds, percentiles["50"], percentiles["99"])
