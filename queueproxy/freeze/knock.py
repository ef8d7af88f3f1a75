"""Runs a look at the pod's listening sockets while the app sleeps, so that whoever connects to it directly is served.

A kubelet's liveness probe does not pass through the proxy; it connects to the app. While the app sleeps the kernel
completes the handshake and the connection waits in the accept queue, where sock_diag shows it to anybody in the same
network namespace (design D9, FZ-098). Such a knock wakes the app for a moment. What it touches: one netlink socket and
one timer. What happens when the kernel will not say: the app stays awake, because its probes would fail unseen.

The same look is taken before sleep (FZ-028): nobody may be waiting, no visitor of the last knock may still be talking
(a slow probe handler), and the process that listens must be the one that became ready (FZ-012).

Visitors are counted by a walk over all connections, which is dear, or by an account, which is not. Nobody was there at
one count of arrivals (`_nobody_at`); all who came since waited when the app was woken; as many have ended since then,
and no other has come: then nobody is there. Whatever does not add up is walked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from math import inf
from typing import Final, Protocol

from queueproxy.clock import monotonic
from queueproxy.freeze.budget import LONG, WakeBudget
from queueproxy.freeze.rhythm import FINE, Rhythm
from queueproxy.freeze.vocabulary import Look
from queueproxy.net.farewell import Farewells, arrivals
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
        "_account", "_budget", "_farewells", "_inodes", "_knocked_at", "_loop", "_nobody_at", "_ours", "_over", "_port",
        "_quiet", "_rhythm", "_sleeper", "_suspects", "_timer", "_watch", "knocks",
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
        self._nobody_at: int | None = None  # arrivals ever, when nobody from outside was connected
        self._account: tuple[int, int] | None = None  # arrivals ever, and those that waited, when the app was woken
        self._farewells = Farewells()
        self._over: asyncio.TimerHandle | None = None
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
        self._close_account()
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
        self._open_account()
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
        if monotonic() - self._knocked_at >= VISIT:
            self._nobody_at = None
        elif not self._is_balanced(ports):
            self._nobody_at, arrived = None, arrivals()
            for port, count in self._watch.visitors(ports).items():
                return f"{count} visitors talk to port {port}"
            self._nobody_at = arrived
        return None

    # -- the account of visitors

    def _open_account(self) -> None:
        """At a knock, while the app cannot accept anybody. Who comes between the two questions does not add up."""
        self._close_account()
        arrived = arrivals() if self._nobody_at is not None and self._farewells.listen() else None
        if self._nobody_at is None or arrived is None:
            return
        with suppress(SockDiagError):
            listeners = self._watch.listeners()
            waiting = sum(one.waiting for port, one in listeners.items() if port not in self._ours)
            if arrived - self._nobody_at == waiting:
                self._account = arrived, waiting
        self._over = self._loop.call_later(VISIT, self._close_account)  # a busy app's farewells are nobody's

    def _is_balanced(self, ports: Collection[int]) -> bool:
        """Whether all who waited at the last knock have left, and nobody else has come."""
        account, left = self._account, self._farewells.count(ports) if self._account is not None else None
        self._close_account()
        if account is None or account != (arrivals(), left):
            return False
        self._nobody_at = account[0]
        return True

    def _close_account(self) -> None:
        self._account = None
        self._farewells.close()
        if self._over is not None:
            self._over.cancel()
            self._over = None

    def _is_another(self, listeners: dict[int, Listener]) -> bool:
        """The app's port belongs to other sockets than before, or to none. Workers that come and go share one."""
        own = listeners.get(self._port)
        inodes = own.inodes if own is not None else frozenset()
        before, self._inodes = self._inodes, inodes
        return bool(before) and before.isdisjoint(inodes)
