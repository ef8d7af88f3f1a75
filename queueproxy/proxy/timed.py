"""Serves requests whose answers say how long the app had to be woken for: `Server-Timing: thaw;dur=0.42` (FZ-101).

Used in front of whatever class serves requests, only where the pod's owner asks for it: clients can read the field, and
not everybody wants them to know. Only requests that waited carry it; an app's own entries stay beside it, as the field
is a list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from queueproxy.clock import monotonic
from queueproxy.proxy.exchange import Exchange

if TYPE_CHECKING:
    from queueproxy.codec.response import ResponseReader

__all__ = ["timed"]


class TimedExchange(Exchange):
    """wait_began_at: 0 when it did not have to wait. waited_for: seconds."""

    wait_began_at = 0.0
    waited_for = 0.0

    def _when_awake(self) -> None:
        if not self.plane.gate.is_open:
            self.wait_began_at = monotonic()
        super()._when_awake()

    def awake(self) -> None:
        """The end of a wait."""
        if self.wait_began_at and not self.waited_for:
            self.waited_for = monotonic() - self.wait_began_at
        super().awake()

    def response_received(self, response: ResponseReader) -> None:
        super().response_received(response)
        out = self._out
        if self.waited_for and out and out[-1].endswith(b"\r\n\r\n"):
            out[-1] = b"%bServer-Timing: thaw;dur=%.2f\r\n\r\n" % (out[-1][:-2], self.waited_for * 1000)


def timed(parent: type[Exchange]) -> type[Exchange]:
    """The same, with the field."""
    return parent if issubclass(parent, TimedExchange) else type("Timed", (TimedExchange, parent), {})
