"""Runs an upgraded connection: bytes both ways, half-close both ways, until both sides are done (QP-080).

The exchange stays open meanwhile: slot, stats and the sleep policy see a request in progress (QP-144, QP-154).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from queueproxy.clock import monotonic
from queueproxy.codec.response import switching_bytes
from queueproxy.errors import upgrade_mismatch

if TYPE_CHECKING:
    from queueproxy.proxy.exchange import Exchange
    from queueproxy.proxy.server import ClientConnection
    from queueproxy.proxy.upstream import UpstreamConnection


def switch(exchange: Exchange, protocol: bytes, lines: list[bytes]) -> None:
    """A 101 from the app: hands the connection over if it is what the client asked for, else 502 (QP-081)."""
    asked = exchange.head.upgrade or b""
    upstream = exchange.upstream
    if upstream is None or asked.lower() != protocol.lower():
        exchange.fail(upgrade_mismatch(protocol, asked))
    else:
        exchange.hand_over(switching_bytes(protocol, lines), Tunnel(exchange, exchange.client, upstream))


class Tunnel:
    """Relays between a client and an app connection; a full writer on one side stops the reader on the other.

    from_client, from_app: take bytes of one side for the other; writers themselves where nothing else is to be done.
    """

    __slots__ = ("_app", "_app_done", "_client", "_client_done", "_exchange", "from_app", "from_client")

    def __init__(self, exchange: Exchange, client: ClientConnection, app: UpstreamConnection) -> None:
        self._exchange = exchange
        self._client = client
        self._app = app
        self._client_done = False
        self._app_done = False
        self.from_client: Callable[[bytes], None] = app.transport.write
        self.from_app: Callable[[bytes], None] = client.transport.write
        if exchange.plane.timeouts.idle:
            self.from_app = self._noted

    def __repr__(self) -> str:
        return f"<Tunnel client_done={self._client_done} app_done={self._app_done}>"

    def _noted(self, data: bytes) -> None:
        self._client.transport.write(data)
        self._exchange.wrote_at = monotonic()  # relayed bytes are writes (D02)

    def client_ended(self) -> None:
        """The client will send no more; the app may still answer."""
        self._client_done = True
        self._end(self._app.transport)

    def app_ended(self) -> None:
        """The app will send no more; the client may still talk."""
        self._app_done = True
        self._end(self._client.transport)

    def _end(self, transport: object) -> None:
        if self._client_done and self._app_done:
            self._exchange.tunnel_ended()
        else:
            transport.write_eof()  # type: ignore[attr-defined]
