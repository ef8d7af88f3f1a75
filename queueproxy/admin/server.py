"""Serves a side port: the same HTTP/1.1 codec as the request port, answers from a handler, now or later.

A handler gets the head and a `respond` callable to be called once; until then the connection's next request waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from queueproxy.admin.routes import Reply
from queueproxy.clock import http_date
from queueproxy.codec.http1 import PAUSED, BadMessage, RequestHead, RequestReader
from queueproxy.codec.response import answer_bytes, connection_line

Respond = Callable[[Reply], None]
Handler = Callable[[RequestHead, Respond], None]

HEAD_TIMEOUT: Final = 60.0  # seconds; Go's ReadHeaderTimeout on 8022 and 9090 (contract 1.1)
BODY_LIMIT: Final = 64 * 1024  # nobody sends a body here; more than this closes the connection


class AdminConnection(asyncio.Protocol):
    """One connection to a side port."""

    __slots__ = (
        "_answered",
        "_body",
        "_connections",
        "_handler",
        "_head_timeout",
        "_loop",
        "_read",
        "_reader",
        "_timer",
        "_transport",
    )  # fmt: skip

    _transport: asyncio.Transport

    def __init__(
        self,
        handler: Handler,
        loop: asyncio.AbstractEventLoop,
        connections: set[AdminConnection],
        head_timeout: float = HEAD_TIMEOUT,
    ) -> None:
        self._handler = handler
        self._loop = loop
        self._connections = connections
        self._head_timeout = head_timeout
        self._reader = RequestReader(self)
        self._timer: asyncio.TimerHandle | None = None
        self._answered = True
        self._read = True
        self._body = 0

    def __repr__(self) -> str:
        return f"<AdminConnection answered={self._answered} {self._reader!r}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self)
        self._stop_timer()

    def data_received(self, data: bytes) -> None:
        self._read_on(lambda: self._reader.feed(data))
        if self._reader.backlog and not self._transport.is_closing():
            self._transport.pause_reading()

    def _read_on(self, step: Callable[[], None]) -> None:
        try:
            step()
        except BadMessage as bad:
            body = f"{bad.status} {bad.reason}".encode()
            self._transport.write(answer_bytes(bad.status, body, date=b"", connection=b"Connection: close\r\n"))
            self._transport.close()
            return
        if self._reader.mid_message:
            if self._timer is None:
                self._timer = self._loop.call_later(self._head_timeout, self._transport.abort)
        elif self._timer is not None:
            self._stop_timer()

    def head_received(self, head: RequestHead) -> None:
        self._answered = False
        self._read = head.body == 0
        self._body = 0
        self._handler(head, lambda reply: self._respond(head, reply))

    def body_received(self, data: bytes) -> None:
        self._body += len(data)
        if self._body > BODY_LIMIT:
            self._transport.abort()

    def body_ended(self, trailers: list[tuple[bytes, bytes]]) -> None:
        self._read = True
        if self._answered:
            self._loop.call_soon(self._next)

    def raw_received(self, data: bytes) -> None:
        """Nothing is ever upgraded here."""

    def close_if_idle(self) -> None:
        """Shutdown: nothing is owed to this client."""
        if self._answered:
            self._transport.close()

    def _respond(self, head: RequestHead, reply: Reply) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(
            answer_bytes(
                reply.status,
                reply.body,
                date=http_date(),
                content_type=reply.content_type,
                extra=reply.extra,
                connection=connection_line(keep=head.keep_alive, minor=head.minor),
                head_only=head.method == b"HEAD",
            )
        )
        self._answered = True
        if not head.keep_alive:
            self._transport.close()
        elif self._read:
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        """Both sides of the present exchange are done: look at the next request."""
        if self._transport.is_closing() or not (self._answered and self._read) or self._reader.state != PAUSED:
            return
        self._read_on(self._reader.resume)
        if not self._reader.backlog and not self._transport.is_closing():
            self._transport.resume_reading()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
