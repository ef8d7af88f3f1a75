"""Runs a look at the pod's listening sockets while the app sleeps, so that whoever connects to it directly is served.

A kubelet's liveness probe does not pass through the proxy; it connects to the app. While the app sleeps the kernel
completes the handshake and the connection waits in the accept queue, where sock_diag shows it to anybody in the same
network namespace (design D9, FZ-098). Such a knock wakes the app for a moment. What it touches: one netlink socket and
one timer. What happens when the kernel will not say: the app stays awake, because its probes would fail unseen.

The same look is taken before sleep (FZ-028): nobody may be waiting, no visitor of the last knock may still be talking
(a slow probe handler), and the process that listens must be the one that became ready (FZ-012).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from math import inf
from typing import Final, Protocol

from queueproxy.clock import monotonic
from queueproxy.freeze.budget import LONG, WakeBudget
from queueproxy.freeze.rhythm import FINE, Rhythm
from queueproxy.freeze.vocabulary import Look
from queueproxy.net.sockdiag import Listener, SockDiagError, SocketWatch

__all__ = ["Knock", "Sleeper"]

# Seconds after a knock in which an open connection of a visitor keeps the app awake: ten times a kubelet's default
# timeout. A visitor that stays for longer keeps a connection alive and is no probe.
VISIT: Final = 10.0


class Sleeper(Protocol):
    """The gate, as far as it is needed here."""

    def touched(self, why: str, hold_for: float | None = None) -> None: ...
    def app_restarted(self) -> None: ...


class Knock:
    """ports_of_ours: what the proxy listens on itself; every other listener in the namespace may be the app's."""

    __slots__ = (
        "_budget", "_inodes", "_knocked_at", "_loop", "_ours", "_port", "_quiet", "_rhythm", "_sleeper", "_suspects",
        "_timer", "_watch", "knocks",
    )  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sleeper: Sleeper, user_port: int, ports_of_ours: Collection[int]
    ) -> None:
        self._loop = loop
        self._sleeper = sleeper
        self._port = user_port
        self._ours = frozenset(ports_of_ours)
        self._watch = SocketWatch()
        self._rhythm = Rhythm()
        self._budget = WakeBudget(monotonic())
        self._timer: asyncio.TimerHandle | None = None
        self._inodes: frozenset[int] = frozenset()  # of the app that became ready
        self._suspects: frozenset[int] = frozenset()  # other ports at which somebody waited in the last look
        self._quiet: dict[int, Listener] | None = None  # a look in which nothing was of interest
        self._knocked_at = -inf
        self.knocks = 0

    def __repr__(self) -> str:
        return f"<Knock port={self._port} {'watching' if self._timer else 'resting'} {self._rhythm!r}>"

    def start(self) -> None:
        """The app sleeps."""
        self.stop()
        self._timer = self._loop.call_later(self._rhythm.began(monotonic()), self._peek)

    def stop(self) -> None:
        """The app is about to run."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._suspects = frozenset()

    def close(self) -> None:
        self.stop()
        self._watch.close()

    # -- asleep

    def _peek(self) -> None:
        self._timer = None
        now = monotonic()
        try:
            listeners = self._watch.listeners()
        except SockDiagError as error:
            self._sleeper.touched(str(error), VISIT)
            return
        if listeners is self._quiet:  # not a byte of it has changed
            self._timer = self._loop.call_later(self._rhythm.looked(now, False), self._peek)
            return
        if self._is_another(listeners):
            self._sleeper.app_restarted()
            return
        knocked = self._knocked(listeners)
        self._quiet = None if knocked or self._suspects else listeners
        pause = self._rhythm.looked(now, knocked)
        if not knocked:
            self._timer = self._loop.call_later(FINE if self._suspects else pause, self._peek)
            return
        self.knocks += 1
        self._knocked_at = now
        self._suspects = frozenset()
        hold = self._budget.spent(now)
        self._sleeper.touched("knock: wake budget spent" if hold == LONG else "knock", hold)

    def _knocked(self, listeners: dict[int, Listener]) -> bool:
        """Somebody waits at the app's port; or twice in a row at another one, whose process may well be awake and
        just about to accept."""
        own = listeners.get(self._port)
        if own is not None and own.waiting:
            return True
        waited = self._suspects
        self._suspects = frozenset(port for port, one in listeners.items() if one.waiting and port not in self._ours)
        return not waited.isdisjoint(self._suspects)

    # -- before sleep

    def look(self, look: Look, looked: Callable[[int, str | None], None]) -> None:
        """gate's search for a reason not to sleep."""
        obstacle = None
        another = False
        if look.backlog:
            try:
                listeners = self._watch.listeners()
                another = self._is_another(listeners)
                obstacle = "the app was restarted" if another else self._obstacle(listeners)
            except SockDiagError as error:
                obstacle = str(error)
        looked(look.number, obstacle)
        if another:
            self._sleeper.app_restarted()

    def _obstacle(self, listeners: dict[int, Listener]) -> str | None:
        ports = [port for port in listeners if port not in self._ours]
        for port in ports:
            if listeners[port].waiting:
                return f"{listeners[port].waiting} connections wait at port {port}"
        if monotonic() - self._knocked_at < VISIT:
            for port, count in self._watch.visitors(ports).items():
                return f"{count} visitors talk to port {port}"
        return None

    def _is_another(self, listeners: dict[int, Listener]) -> bool:
        """The app's port belongs to other sockets than before, or to none. Workers that come and go share one."""
        own = listeners.get(self._port)
        inodes = own.inodes if own is not None else frozenset()
        before, self._inodes = self._inodes, inodes
        return bool(before) and before.isdisjoint(inodes)
