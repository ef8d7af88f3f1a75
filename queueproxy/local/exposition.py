"""Serves a run's metrics: the sidecar's page of 9091, with the names of design §6, on a port of the user's choice.

A port that is taken costs the metrics and not the run: two runs side by side are common, two readers of the default
port are not.
"""

from __future__ import annotations

import asyncio

from queueproxy.admin.routes import Reply, user_metrics
from queueproxy.admin.server import AdminConnection, Respond
from queueproxy.codec.http1 import RequestHead
from queueproxy.metrics.pause import PauseCounts
from queueproxy.metrics.recorder import Recorder
from queueproxy.net.listen import listen

__all__ = ["Exposition"]


class Exposition:
    """The listener and its connections."""

    __slots__ = ("_connections", "_server")

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._connections: set[AdminConnection] = set()

    def __repr__(self) -> str:
        return f"<Exposition connections={len(self._connections)}>"

    async def open(
        self, loop: asyncio.AbstractEventLoop, host: str, port: int, recorder: Recorder, pause: PauseCounts
    ) -> None:
        """Start serving. Raises ListenFailed."""
        sock = listen(port, host)
        from queueproxy.metrics.prometheus import CONTENT_TYPE, exposition  # 24 ms, so not before it is wanted

        page = exposition(recorder, pause, lambda: None)

        def handler(head: RequestHead, respond: Respond) -> None:
            refusal = user_metrics(head.method, head.target)
            respond(refusal if refusal is not None else Reply(200, page(), CONTENT_TYPE))

        self._server = await loop.create_server(lambda: AdminConnection(handler, loop, self._connections), sock=sock)

    def close(self) -> None:
        """Stop serving; an answer under way is finished."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.close_if_idle()
