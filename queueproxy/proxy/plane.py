"""Holds what every request needs: one Plane per process, shared by all listeners (QP-155, QP-143)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from queueproxy.codec.headers import K_NETWORK_PROBE, USER_AGENT
from queueproxy.errors import Failure
from queueproxy.limit.gate import LimitGate
from queueproxy.metrics.recorder import Recorder
from queueproxy.proxy.classify import MARKED, NETWORK_PROBE, PROBE_AGENTS, Kind, OwnAnswer, probe_answer
from queueproxy.proxy.deadline import Timeouts
from queueproxy.proxy.exchange import Exchange

if TYPE_CHECKING:
    from queueproxy.metrics.requests import HttpCounts
    from queueproxy.proxy.observed import Observer
    from queueproxy.proxy.server import ClientConnection
    from queueproxy.proxy.traced import Tracer
    from queueproxy.proxy.upstream import Pool


class SleepGate(Protocol):
    """What the request path needs of freeze.gate.

    is_open: requests may be forwarded. arrived/left: one request began/ended. wait/cancel: a request waits for the
    thaw; its `awake()` or `refused(text)` is called once. reading/read: a half-read request is here / is whole or gone.
    """

    @property
    def is_open(self) -> bool: ...
    def arrived(self, now: float) -> None: ...
    def left(self, now: float) -> None: ...
    def reading(self, now: float) -> None: ...
    def read(self, now: float) -> None: ...
    def wait(self, waiter: Exchange) -> None: ...
    def cancel(self, waiter: Exchange) -> None: ...


class DrainState(Protocol):
    """What the request path needs of the drain machine."""

    draining: bool

    def request_arrived(self, now: float) -> None: ...


class Health(Protocol):
    """Runs the readiness prober; `done` is called once with the verdict, possibly at once."""

    def check(self, done: Callable[[bool], None]) -> None: ...


class ErrorLog(Protocol):
    """Where a request's server-side failure is reported."""

    def error(self, message: str, /, **fields: object) -> None: ...
    def warning(self, message: str, /, **fields: object) -> None: ...


class Plane:
    """limit is None without a limiter (CC = 0, QP-152). closing: connections end after their present answer.

    exchange: what a request is run by; another class when somebody observes (proxy.observed), so that nobody pays else.
    http: counts of proxy.measured. tracer: of proxy.traced. probe_asked: told who asked, of each probe. let_down: told
    of each request to which the app had no connection or no answer: when it came, and what was wrong.
    """

    __slots__ = (
        "_untimed", "closing", "connections", "drain", "exchange", "gate", "health", "http", "idle_empty", "in_flight",
        "let_down", "limit", "log", "loop", "observer", "pool", "probe_asked", "recorder", "shortest", "timeouts",
        "tracer", "tunnels",
    )  # fmt: skip

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        recorder: Recorder,
        limit: LimitGate | None,
        gate: SleepGate,
        pool: Pool,
        timeouts: Timeouts,
        health: Health,
        drain: DrainState,
        log: ErrorLog,
    ) -> None:
        self.loop = loop
        self.recorder = recorder
        self.limit = limit
        self.gate = gate
        self.pool = pool
        self.timeouts = timeouts
        self.shortest = timeouts.shortest
        self.health = health
        self.drain = drain
        self.log = log
        self.exchange: type[Exchange] = Exchange
        self.observer: Observer | None = None
        self.http: HttpCounts | None = None
        self.tracer: Tracer | None = None
        self.probe_asked: Callable[[str], None] | None = None
        self.let_down: Callable[[float, str], None] | None = None
        self._untimed: type[Exchange] | None = None
        self.closing = False
        self.in_flight = 0  # requests inside the chain, tunnels included; what shutdown waits for
        self.tunnels = 0  # of those, upgraded connections, which get 60 s more (QP-285)
        self.connections: set[ClientConnection] = set()
        self.idle_empty: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<Plane in_flight={self.in_flight} connections={len(self.connections)} closing={self.closing}>"

    def refused(self, exchange: Exchange, failure: Failure) -> None:
        """A request gets one of our own answers."""
        self.recorder.refuse(failure.kind)
        if self.let_down is not None and failure.kind in _LET_DOWN:
            self.let_down(exchange.began_at, failure.text)

    def tell_waits(self, *, on: bool) -> None:
        """Whether answers say how long their request waited for the thaw (FZ-101)."""
        if on and self._untimed is None:
            from queueproxy.proxy.timed import timed  # only for those who want it

            self._untimed, self.exchange = self.exchange, timed(self.exchange)
        elif not on and self._untimed is not None:
            self.exchange, self._untimed = self._untimed, None

    def settle(self, exchange: Exchange, status: int, reached: bool, now: float) -> None:
        """Gives back what `Exchange.begin` and `admitted` took; called once per request, by its one exit.

        reached: it got past the limiter, so it is an invocation (contract 3.11).
        """
        self.in_flight -= 1
        if exchange.tunnel is not None:
            self.tunnels -= 1
        if exchange.kind is not MARKED:
            recorder = self.recorder
            recorder.window.left(now, exchange.proxied)
            if reached and not exchange.head.special.get(K_NETWORK_PROBE):  # a probe by its header (contract 3.6)
                recorder.invoked(status, now - exchange.began_at)
        if exchange.slotted and self.limit is not None:
            self.limit.leave()
        self.gate.left(now)
        if self.idle_empty is not None and self.in_flight <= self.tunnels:
            self.idle_empty()

    def probed(self, kind: Kind, special: dict[int, bytes]) -> OwnAnswer | None:
        """A HEALTH or NETWORK_PROBE request is here; see `probe_answer`."""
        if self.probe_asked is not None:
            self.probe_asked("network" if kind is NETWORK_PROBE else _asker(special[USER_AGENT]))
        return probe_answer(kind, special, self.drain.draining)

    @property
    def delivered(self) -> bool:
        """No client is still to take a part of its answer: then, and not before, the process may end."""
        return not any(connection.owes for connection in self.connections)

    def close_idle(self) -> None:
        """Shutdown: no connection is kept after its present answer; idle ones end now (QP-283)."""
        self.closing = True
        for connection in list(self.connections):
            connection.close_if_idle()
        self.pool.close()


def _asker(agent: bytes) -> str:
    """Who sends health checks: one word for each of PROBE_AGENTS."""
    return next(word for word, prefix in zip(_ASKERS, PROBE_AGENTS, strict=True) if agent.startswith(prefix))


_LET_DOWN = frozenset(("dial", "dial_timeout", "upstream_eof", "upstream_lost"))  # kinds: errors at connection level
_ASKERS = ("kubelet", "activator", "autoscaler")
