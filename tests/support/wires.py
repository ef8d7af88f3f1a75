"""The request path without sockets or an event loop: real connections, exchanges, pool, limiter and sleep gate; wires,
clock, dials and mechanism in the test's hand.

    with Wires(concurrency=1) as wires:
        client = wires.client()
        client.says(GET)
        app = wires.dialled()
        app.says(HELLO)
        assert client.got() == ...
        wires.at_rest()

A wire is strict: it fails the test when something is written after our own end of it, or when reading is paused or
resumed out of turn.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from heapq import heappop, heappush
from typing import Any
from unittest.mock import patch

from queueproxy.errors import Failure, dial_failed
from queueproxy.freeze.gate import Answered, Gate
from queueproxy.freeze.policy import IdlePolicy, IdleSettings, Rung
from queueproxy.limit.breaker import Breaker
from queueproxy.limit.gate import LimitGate
from queueproxy.metrics.recorder import Recorder
from queueproxy.metrics.window import Window
from queueproxy.proxy.deadline import Timeouts
from queueproxy.proxy.plane import Plane
from queueproxy.proxy.server import ClientConnection
from queueproxy.proxy.unmade import Unmade
from queueproxy.proxy.upstream import Pool, UpstreamConnection

__all__ = ["GET", "HELLO", "POST", "AppWire", "ClientWire", "Clock", "Loop", "Mechanism", "Transport", "Wires"]

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
HELLO = b"HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 5\r\n\r\nhello"
HIGH_WATER = 64 * 1024  # asyncio's default

_CLOCKED = ("proxy.server", "proxy.exchange", "proxy.upstream", "proxy.tunnel", "freeze.gate")


class Clock:
    """Called like time.monotonic; moved by the loop."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Handle:
    """A timer or a callback that was not run yet."""

    def __init__(self, call: Callable[..., object], args: tuple[object, ...]) -> None:
        self._call: Callable[..., object] | None = call
        self._args = args

    def cancel(self) -> None:
        self._call = None

    def cancelled(self) -> bool:
        return self._call is None

    def run(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call(*self._args)


class Loop:
    """call_soon and call_later of an event loop; nothing runs but in `settle` and `advance`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ready: list[Handle] = []
        self._timers: list[tuple[float, int, Handle]] = []
        self._count = 0
        self.faults: list[dict[str, Any]] = []

    def call_soon(self, call: Callable[..., object], *args: object) -> Handle:
        handle = Handle(call, args)
        self._ready.append(handle)
        return handle

    def call_later(self, delay: float, call: Callable[..., object], *args: object) -> Handle:
        assert delay >= 0
        handle = Handle(call, args)
        self._count += 1
        heappush(self._timers, (self._clock.now + delay, self._count, handle))
        return handle

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.faults.append(context)

    @property
    def timers(self) -> int:
        """Armed timers."""
        return sum(not handle.cancelled() for _, _, handle in self._timers)

    def settle(self) -> None:
        """Runs what is ready, and what that made ready."""
        while self._ready:
            self._ready.pop(0).run()

    def advance(self, seconds: float) -> None:
        """Moves the clock, firing timers in order at their instants."""
        until = self._clock.now + seconds
        self.settle()
        while self._timers and self._timers[0][0] <= until:
            at, _, handle = heappop(self._timers)
            if not handle.cancelled():
                self._clock.now = max(self._clock.now, at)
                handle.run()
                self.settle()
        self._clock.now = until


class Transport:
    """One end of a connection as a protocol sees it. taking: the peer reads what we write."""

    def __init__(self, loop: Loop, protocol: Any) -> None:
        self._loop = loop
        self._protocol = protocol
        self._pair: tuple[socket.socket, socket.socket] | None = None
        self.out = bytearray()  # written and not looked at
        self.buffered = 0
        self.taking = True
        self.reading = True
        self.pauses = self.resumes = 0
        self.writes = 0
        self.eof = False
        self.closing = False
        self.aborted = False
        self.ours = False  # it was we who ended it
        self.lost = False

    # -- what the protocol calls

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes) and data, f"wrote {data!r}"
        assert not self.eof, f"written after our end of file: {data!r}"
        assert not self.ours, f"written after we closed: {data!r}"
        if self.closing or self.lost:
            return  # the peer was quicker, which no one can know yet
        self.writes += 1
        self.out += data
        if not self.taking:
            was, self.buffered = self.buffered, self.buffered + len(data)
            if was <= HIGH_WATER < self.buffered:
                self._protocol.pause_writing()

    def writelines(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def write_eof(self) -> None:
        assert not self.ours, "end of file after we closed"
        self.eof = True

    def close(self) -> None:
        if not self.closing and not self.lost:
            self.closing = self.ours = True
            if not self.buffered:
                self._loop.call_soon(self._lose, None)

    def abort(self) -> None:
        if not self.lost:
            self.closing = self.ours = self.aborted = True
            self._loop.call_soon(self._lose, None)

    def is_closing(self) -> bool:
        return self.closing or self.lost

    def pause_reading(self) -> None:
        assert not self.is_closing(), "pause after the end"
        self.reading = False
        self.pauses += 1

    def resume_reading(self) -> None:
        assert not self.is_closing(), "resume after the end"
        self.reading = True
        self.resumes += 1

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "peername":
            return ("10.0.0.9", 40000)
        if name == "socket":
            if self._pair is None:
                self._pair = socket.socketpair()
            return self._pair[0]
        return default

    # -- what the test does

    def deliver(self, data: bytes) -> None:
        assert self.reading, "delivered to a protocol that does not read"
        assert not self.is_closing(), "delivered after the end"
        self._protocol.data_received(data)

    def deliver_eof(self) -> None:
        if not self._protocol.eof_received() and not self.is_closing():
            self.closing = True
            self._loop.call_soon(self._lose, None)

    def lose(self, error: Exception | None = None) -> None:
        self.closing = True
        self._lose(error)

    def _lose(self, error: Exception | None) -> None:
        if not self.lost:
            self.lost = self.closing = True
            self._protocol.connection_lost(error)

    def take_all(self) -> None:
        """The peer reads again."""
        self.taking = True
        full, self.buffered = self.buffered > HIGH_WATER, 0
        if full and not self.lost:
            self._protocol.resume_writing()
        if self.closing and not self.lost:
            self._loop.call_soon(self._lose, None)

    def make_stale(self) -> None:
        """The kernel holds something that the loop has not shown."""
        self.get_extra_info("socket")
        assert self._pair is not None
        self._pair[1].close()

    def release(self) -> None:
        for sock in self._pair or ():
            sock.close()


class _Wire:
    """The far end of one connection. `got` returns what arrived since the last call."""

    def __init__(self, wires: Wires, protocol: Any) -> None:
        self._wires = wires
        self.protocol = protocol
        self.transport = Transport(wires.loop, protocol)
        wires.transports.append(self.transport)
        protocol.connection_made(self.transport)

    def says(self, data: bytes) -> None:
        """Data arrives, in one read."""
        self.transport.deliver(data)
        self._wires.loop.settle()

    def got(self) -> bytes:
        data = bytes(self.transport.out)
        self.transport.out.clear()
        return data

    def ends(self) -> None:
        """End of file."""
        self.transport.deliver_eof()
        self._wires.loop.settle()

    def leaves(self, error: Exception | None = None) -> None:
        """The connection is gone."""
        self.transport.lose(error)
        self._wires.loop.settle()

    @property
    def open(self) -> bool:
        return not self.transport.is_closing() and not self.transport.eof


def unmade() -> Unmade:
    """For a connection whose transport is made before anything is sent on it."""
    no_socket: Any = None
    return Unmade(no_socket)


class ClientWire(_Wire):
    """A client."""

    protocol: ClientConnection


class AppWire(_Wire):
    """The app's end of an upstream connection."""

    protocol: UpstreamConnection

    def __init__(self, wires: Wires, protocol: UpstreamConnection) -> None:
        super().__init__(wires, protocol)
        protocol.opened()


class WiredPool(Pool):
    """Real but for the dialling, which the test decides."""

    def __init__(self, loop: Any, limit: int) -> None:
        super().__init__(loop, "127.0.0.1", 8080, limit)
        self.waiting: list[tuple[Callable[[UpstreamConnection], None], Callable[[Failure], None]]] = []

    def dial(self, connected: Callable[[UpstreamConnection], None], failed: Callable[[Failure], None]) -> None:
        self.waiting.append((connected, failed))


class Mechanism:
    """Answers at once what `says` says (None: fails), or never by itself when `silent`; keeps what was asked."""

    name = "script"

    def __init__(self, *, silent: bool = False) -> None:
        self.silent = silent
        self.fails = False
        self.asked: list[tuple[Rung, int]] = []
        self._answered: Answered | None = None

    def ask(self, rung: Rung, generation: int, answered: Answered) -> None:
        self.asked.append((rung, generation))
        self._answered = answered
        if not self.silent:
            self.answer()

    def answer(self) -> None:
        """To the newest question."""
        assert self._answered is not None, "nothing was asked"
        rung, generation = self.asked[-1]
        self._answered(generation, None if self.fails else rung, "script")


class Health:
    """`verdict` at once, or nothing until `decide` when it is None."""

    def __init__(self) -> None:
        self.verdict: bool | None = True
        self.waiting: list[Callable[[bool], None]] = []

    def check(self, done: Callable[[bool], None]) -> None:
        if self.verdict is None:
            self.waiting.append(done)
        else:
            done(self.verdict)

    def decide(self, verdict: bool) -> None:
        waiting, self.waiting = self.waiting, []
        for done in waiting:
            done(verdict)


class Drain:
    """A switch."""

    def __init__(self) -> None:
        self.draining = False
        self.arrivals: list[float] = []

    def request_arrived(self, now: float) -> None:
        self.arrivals.append(now)


class Log:
    """Lines as (level, message, fields)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def error(self, message: str, /, **fields: object) -> None:
        self.lines.append(("error", message, fields))

    def warning(self, message: str, /, **fields: object) -> None:
        self.lines.append(("warning", message, fields))


class Wires:
    """One plane with everything around it. freezing: the app may be put to sleep with `put_to_sleep`."""

    def __init__(
        self,
        *,
        concurrency: int = 0,
        timeouts: Timeouts | None = None,
        freezing: bool = False,
        pool: int = 10,
    ) -> None:
        self._patches = ExitStack()
        self.clock = Clock()
        for module in _CLOCKED:
            self._patches.enter_context(patch(f"queueproxy.{module}.monotonic", self.clock))
        self.transports: list[Transport] = []
        self._apps: list[AppWire] = []
        loop: Any = Loop(self.clock)
        self.loop: Loop = loop
        self.window = Window(self.clock.now)
        self.recorder = Recorder(self.window)
        self.limit: LimitGate | None = None
        if concurrency:
            self.limit = LimitGate(Breaker(concurrency, 10 * concurrency))
        self.pool = WiredPool(loop, pool)
        self.mechanism = Mechanism()
        after = 1.0 if freezing else None
        settings = IdleSettings(freeze_after=after, min_uptime=0.0, min_running=0.0, look_first=False)
        self.policy = IdlePolicy(settings)
        self.gate = Gate(self.policy, loop, self.mechanism, drop_pool=self.pool.close)
        self.health = Health()
        self.drain = Drain()
        self.log = Log()
        self.plane = Plane(
            loop=loop,
            recorder=self.recorder,
            limit=self.limit,
            gate=self.gate,  # type: ignore[arg-type]
            pool=self.pool,
            timeouts=timeouts or Timeouts(300.0),
            health=self.health,
            drain=self.drain,
            log=self.log,
        )

    def __enter__(self) -> Wires:
        return self

    def __exit__(self, *_: object) -> None:
        self._patches.close()
        for transport in self.transports:
            transport.release()

    def app(self) -> AppWire:
        """The one connection to the app that is in use; accepted now if it is being dialled."""
        if self.pool.waiting:
            return self.dialled()
        (app,) = (app for app in self._apps if app.protocol.exchange is not None)
        return app

    def client(self) -> ClientWire:
        """A client connects."""
        return ClientWire(self, ClientConnection(self.plane))

    def dialled(self, index: int = 0) -> AppWire:
        """The app accepts a connection that somebody is dialling."""
        connected, _ = self.pool.waiting.pop(index)
        app = self._accepted()
        connected(app.protocol)
        self.loop.settle()
        return app

    def refused(self) -> None:
        """The app refuses the oldest dial."""
        _, failed = self.pool.waiting.pop(0)
        failed(dial_failed("127.0.0.1", 8080, "connection refused"))
        self.loop.settle()

    def pooled(self) -> AppWire:
        """An idle connection to the app."""
        app = self._accepted()
        self.pool.give_back(app.protocol, self.clock.now)
        return app

    def _accepted(self) -> AppWire:
        app = AppWire(self, UpstreamConnection(self.pool, unmade()))
        self._apps.append(app)
        return app

    def put_to_sleep(self) -> None:
        """The app falls idle and is frozen; thaws are answered when the test says so."""
        self.gate.ready()
        self.loop.advance(5.0)
        assert self.policy.asleep, self.policy
        self.mechanism.silent = True

    @property
    def levels(self) -> tuple[int, int, int, int, int]:
        """Requests as everybody counts them: plane, window, limiter's slots and queue, sleep policy."""
        running = self.limit.breaker.running if self.limit else -1
        queued = self.limit.breaker.in_flight - running if self.limit else -1
        return self.plane.in_flight, self.window.concurrency, running, queued, self.policy.busy

    def at_rest(self) -> None:
        """Everything that was taken has been given back."""
        assert self.levels == (0, 0, *((0, 0) if self.limit else (-1, -1)), 0)
        assert (self.window.proxied, self.plane.tunnels, self.policy.half_read, self.gate.waiting) == (0, 0, 0, 0)
        assert not self.loop.faults
