"""Decides when a request has taken too long: three timeouts folded into one instant (contract 3.8, QP-170…177).

All three start when the request reaches the handler, waiting included (QP-173). Upstream runs a worker and three timers
per request; here a connection keeps one timer and asks `due` when it fires.
"""

from __future__ import annotations

from typing import Final, NamedTuple

NEVER: Final = float("inf")
HEAD_TIMEOUT: Final = 60.0  # seconds to receive a request head once begun; Go's ReadHeaderTimeout (QP-049)
LAST_WORDS: Final = 60.0  # seconds a client that reads slowly has for the end of its last answer
LINGER: Final = 1.0  # seconds to let a client read our last answer before its unread upload is cut off


class Timeouts(NamedTuple):
    """Seconds. max_duration is always positive; 0 switches the other two off (QP-024)."""

    max_duration: float
    response_start: float = 0.0
    idle: float = 0.0

    @property
    def shortest(self) -> float:
        """The earliest any of them can fire after the start."""
        return min(self.max_duration, self.response_start or NEVER, self.idle or NEVER)


def due(timeouts: Timeouts, began_at: float, wrote_at: float) -> tuple[float, str]:
    """(instant, which timeout) for a request begun at began_at that last wrote to its client at wrote_at (0: never).

    The 101 of an upgrade and the bytes relayed after it count as writes, unlike upstream (D02).
    """
    first = began_at + timeouts.max_duration
    which = "Request timeout"
    if timeouts.response_start and not wrote_at:
        at = began_at + timeouts.response_start
        if at < first:
            first, which = at, "Response start timeout"
    if timeouts.idle:
        at = (wrote_at or began_at) + timeouts.idle
        if at < first:
            first, which = at, "Idle timeout"
    return first, which
