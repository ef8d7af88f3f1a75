"""Opens, lends and keeps connections to the app.

The pool decides synchronously (take, give back); dialling is the only asynchronous step and off the common path. A
connection that said anything unexpected, or ends while idle, is dropped at once; all idle ones are dropped before the
app is put to sleep, because its keep-alive timer is overdue the moment it wakes (FZ-030, design D10).
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from queueproxy.clock import monotonic
from queueproxy.codec.response import BadResponse, ResponseReader
from queueproxy.errors import Failure, dial_failed, dial_timed_out, malformed_response
from queueproxy.net.dial import DialError, DialTimeout, connect_at_once, dial, open_transport, socket_for
from queueproxy.proxy.unmade import Unmade

if TYPE_CHECKING:
    from queueproxy.proxy.exchange import Exchange

IDLE_FOR: Final = 90.0  # seconds an idle connection is kept; Go's transport (QP-203)
JOIN_BELOW: Final = 16 * 1024  # pieces under this are joined into one write: copying is cheaper than a second iovec
UNLIMITED_POOL: Final = 1000  # idle connections kept when there is no concurrency limit (QP-203)


class UpstreamConnection(asyncio.Protocol):
    """One connection to the app. exchange: who is using it, None while idle in the pool.

    begun: a head that leaves with the first bytes of its body, which follow in the same turn of the loop.
    """

    __slots__ = (
        "_poll", "_pool", "_unmade", "begun", "closed", "exchange", "idle_since", "paused", "reader", "transport",
    )  # fmt: skip

    transport: asyncio.Transport
    _unmade: Unmade  # stands in for the transport until the loop has made it

    def __init__(self, pool: Pool, unmade: Unmade) -> None:
        self._pool = pool
        self.transport = self._unmade = unmade
        self._poll: select.poll | None = None
        self.reader = ResponseReader()
        self.exchange: Exchange | None = None
        self.begun = b""
        self.closed = False
        self.paused = False
        self.idle_since = 0.0

    def __repr__(self) -> str:
        return f"<UpstreamConnection closed={self.closed} busy={self.exchange is not None} {self.reader!r}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._unmade.made(cast(asyncio.Transport, transport))

    def opened(self) -> None:
        """The transport keeps to `pause_reading` from now on."""
        self.transport = self._unmade.handed_over()
        del self._unmade

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self.drop()  # nobody asked: whatever it is, it must not become somebody's answer
            return
        if exchange.tunnel is not None:
            exchange.tunnel.from_app(data)
            return
        try:
            rest = self.reader.feed(data)
        except BadResponse as error:
            exchange.broken(malformed_response(str(error)))
            return
        exchange.flush()
        if rest and exchange.tunnel is not None:
            exchange.tunnel.from_app(rest)

    def eof_received(self) -> bool:
        exchange = self.exchange
        if exchange is not None and exchange.tunnel is not None:
            exchange.tunnel.app_ended()
            return True  # half-close: we may still have bytes for the app
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._pool.forget(self)
        exchange = self.exchange
        if exchange is not None:
            self.exchange = None
            exchange.upstream_lost(self, error)
        self.reader.close()

    def pause_writing(self) -> None:
        self.paused = True
        if self.exchange is not None:
            self.exchange.client.hold_reading(for_upstream=True)

    def resume_writing(self) -> None:
        self.paused = False
        if self.exchange is not None:
            self.exchange.client.release_reading(for_upstream=True)

    def send(self, data: bytes | memoryview) -> None:
        """Body bytes, with a head that waits for them in one write (of 64 KiB: 197,000 instructions became 190,000)."""
        if self.begun:
            head, self.begun = self.begun, b""
            if len(data) < JOIN_BELOW:
                self.transport.write(head + data)
            else:
                self.transport.writelines((head, data))
        else:
            self.transport.write(data)

    def drop(self) -> None:
        """Ends the connection without waiting for anything; its exchange, if any, has let go of it."""
        self.exchange = None
        if not self.closed:
            self.closed = True
            self.transport.abort()

    def close(self) -> None:
        """Ends the connection when what was written has left; its exchange has let go of it."""
        self.exchange = None
        if not self.closed:
            self.closed = True
            self.transport.close()

    def is_stale(self) -> bool:
        """The kernel already holds an end or unasked bytes that the loop has not shown us. One system call (1 us)."""
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLRDHUP)
        return bool(self._poll.poll(0))


class Pool:
    """Connections to one app. limit: idle connections kept (QP-203); total is not limited (QP-204)."""

    __slots__ = ("_dials", "_idle", "_loop", "_next", "_timer", "host", "host_header", "limit", "opened", "port")

    def __init__(self, loop: asyncio.AbstractEventLoop, host: str, port: int, limit: int) -> None:
        self._loop = loop
        self.host = host
        self.port = port
        self.host_header = f"{host}:{port}".encode()
        self.limit = limit
        self.opened = 0
        self._idle: deque[UpstreamConnection] = deque()  # oldest left, newest right
        self._timer: asyncio.TimerHandle | None = None
        self._dials: set[asyncio.Task[None]] = set()
        self._next: tuple[socket.socket, UpstreamConnection] | None = None

    def __repr__(self) -> str:
        return f"<Pool {self.host}:{self.port} idle={len(self._idle)} dialling={len(self._dials)}>"

    def take(self) -> UpstreamConnection | None:
        """The most recently used idle connection, None when one must be dialled.

        Asks the kernel whether it still lives and is silent: bytes that came unasked in this turn of the loop must not
        become the answer to somebody else's request. 3 us per request, measured; a test shows what happens without.
        """
        while self._idle:
            connection = self._idle.pop()
            if connection.closed:
                continue
            if connection.is_stale():
                connection.drop()
                continue
            return connection
        return None

    def give_back(self, connection: UpstreamConnection, now: float) -> None:
        """The connection is clean and may serve another request."""
        connection.exchange = None
        if len(self._idle) >= self.limit:
            self._idle.popleft().drop()
        connection.idle_since = now
        self._idle.append(connection)
        if self._timer is None:
            self._timer = self._loop.call_later(IDLE_FOR, self._expire)

    def forget(self, connection: UpstreamConnection) -> None:
        """The connection ended."""
        if connection.exchange is None and connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Drops every idle connection."""
        while self._idle:
            self._idle.pop().drop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def leave_alone(self) -> None:
        """At our end: no connection to the app survives, and none is made."""
        self._let_go()
        if self._next is not None:
            self._next[0].close()
            self._next[1].reader.close()
            self._next = None

    def rest(self) -> None:
        """Before the app sleeps: no connection to it survives (FZ-030), no dial reaches it (FZ-035).

        The request that wakes it finds a socket to dial with, which from cold caches takes 0.05 ms to make; not
        connected yet, it is none of the app's business.
        """
        self._let_go()
        if self._next is None:
            self._next = self._unconnected()

    def _let_go(self) -> None:
        """Dials under way belong to requests whose clients have left; their callbacks are not called."""
        self.close()
        for task in self._dials:
            task.cancel()

    def dial(self, connected: Callable[[UpstreamConnection], None], failed: Callable[[Failure], None]) -> None:
        """Opens a connection (contract 3.12). Exactly one of the two is called: at once when the kernel connects at
        once, later otherwise."""
        ready, self._next = self._next or self._unconnected(), None
        if ready is not None:
            if connect_at_once(ready[0], self.host, self.port):
                self._use(*ready, connected)
                return
            ready[1].reader.close()
        task = self._loop.create_task(self._dial(connected, failed))  # kept: a task nobody holds may vanish
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    async def _dial(self, connected: Callable[[UpstreamConnection], None], failed: Callable[[Failure], None]) -> None:
        began_at = monotonic()
        try:
            sock = await dial(self._loop, self.host, self.port)
        except DialTimeout:
            failed(dial_timed_out(self.host, self.port, monotonic() - began_at))
        except DialError as error:
            failed(dial_failed(self.host, self.port, str(error)))
        else:
            self._use(sock, UpstreamConnection(self, Unmade(sock)), connected)

    def _unconnected(self) -> tuple[socket.socket, UpstreamConnection] | None:
        try:
            sock = socket_for(self.host)
        except OSError:
            return None  # `dial` will tell why
        return sock, UpstreamConnection(self, Unmade(sock))

    def _use(
        self, sock: socket.socket, connection: UpstreamConnection, connected: Callable[[UpstreamConnection], None]
    ) -> None:
        self.opened += 1
        connected(connection)  # its request leaves before the loop makes the transport
        try:
            open_transport(self._loop, lambda: connection, sock, connection.opened)
        except OSError as error:
            connection.connection_lost(error)

    def _expire(self) -> None:
        self._timer = None
        oldest_allowed = monotonic() - IDLE_FOR
        while self._idle and self._idle[0].idle_since <= oldest_allowed:
            self._idle.popleft().drop()
        if self._idle:
            wait = self._idle[0].idle_since - oldest_allowed
            self._timer = self._loop.call_later(wait, self._expire)
