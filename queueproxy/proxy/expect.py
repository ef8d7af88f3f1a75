"""Runs the wait for `100 Continue`: the app may say it, and when it stays silent for a second we do (QP-079).

Made only for requests that expect it and whose body is not here yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from queueproxy.codec.response import interim_bytes
from queueproxy.proxy.stage import SENT

if TYPE_CHECKING:
    from queueproxy.proxy.exchange import Exchange

CONTINUE_AFTER: Final = 1.0  # seconds; Go's ExpectContinueTimeout (contract 3.12)


class Expectation:
    """said: a 100 has been written to the client."""

    __slots__ = ("_exchange", "_timer", "said")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.said = False
        self._timer = exchange.plane.loop.call_later(CONTINUE_AFTER, self._on_silence)

    def __repr__(self) -> str:
        return f"<Expectation said={self.said}>"

    def met(self) -> bool:
        """The app said 100. True when the client is to hear it, False when it already did."""
        self._timer.cancel()
        first, self.said = not self.said, True
        return first

    def close(self) -> None:
        """The request is over."""
        self._timer.cancel()

    def _on_silence(self) -> None:
        exchange = self._exchange
        if exchange.stage is SENT and not self.said and exchange.head.minor:
            self.said = True
            exchange.client.transport.write(interim_bytes(100, []))
