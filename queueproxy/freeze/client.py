"""Holds the one connection to the node's freezer and carries out what the session decides: the gate's mechanism.

What it touches: a TCP or Unix socket without a transport around it, one timer, the token file. A wake is one `send`
on the kept-open connection from inside `ask`, and one `recv` when the answer is there: no task, no future, no buffer
in between. What happens when that breaks: the session hears of it and decides; nothing is raised.

Effects are carried out in order. Whatever a callback asks for meanwhile is queued behind them, so that what goes out
on the wire has the order the session counts in.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from queueproxy.clock import monotonic
from queueproxy.freeze.address import Address
from queueproxy.freeze.answer import AnswerReader, BadAnswer
from queueproxy.freeze.credential import TokenFile
from queueproxy.freeze.dialogue import (
    DIAL,
    GET,
    HANG_UP,
    Down,
    Effect,
    Effects,
    Fault,
    Found,
    Say,
    Terms,
    Told,
    Up,
    Woken,
)
from queueproxy.freeze.session import Session
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import (
    OLD_TOKEN_HEADER,
    PATH_SELF,
    PATH_STATE,
    SESSION_HEADER,
    OldAction,
    StateRequest,
    Wanted,
    encode_old,
    encode_request,
)

__all__ = ["FreezerClient", "Owner"]

_READ: Final = 65536
_IN_PROGRESS: Final = (errno.EINPROGRESS, errno.EAGAIN)  # a full Unix listener says the latter
_KEEPALIVE: Final = 15  # seconds, so that a node that vanished is noticed while nothing is said


class Owner(Protocol):
    """Who is told what the freezer says of its own accord; see the effects of the same names."""

    def found(self, generation: int, rung: Rung) -> None: ...
    def woken(self, why: str) -> None: ...
    def terms(self, terms: Terms) -> None: ...
    def up(self, mechanism: str) -> None: ...
    def down(self, reason: str) -> None: ...


class FreezerClient:
    """One pod's way to its freezer. `name` is what the freezer uses, once it is known."""

    __slots__ = (
        "_address", "_answered", "_closed", "_head", "_loop", "_owner", "_queue", "_reader", "_running", "_secret",
        "_session", "_socket", "_timer", "_timer_at", "_token", "name", "why",
    )  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, address: Address, token: TokenFile, session: Session, owner: Owner
    ) -> None:
        self.name = "freezer"
        self.why: Callable[[], str] = lambda: ""  # the reason of the wish that `ask` is about
        self._loop = loop
        self._address = address
        self._token = token
        self._session = session
        self._owner = owner
        self._socket: socket.socket | None = None
        self._reader = AnswerReader()
        self._head: tuple[bytes, bytes, bytes] | None = None  # of GET, PUT and POST; None: to be made anew
        self._secret: str | None = None  # the one in the heads
        self._answered: Callable[[int, Rung | None, str], None] | None = None
        self._queue: deque[Effect] = deque()
        self._running = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._closed = False

    def __repr__(self) -> str:
        return f"<FreezerClient {self._address.authority} {self._session!r}>"

    # -- what the sidecar asks for

    def begin(self) -> None:
        """Look for the freezer, for as long as it takes."""
        self._run(self._session.began(monotonic()))

    def ask(self, rung: Rung, generation: int, answered: Callable[[int, Rung | None, str], None]) -> None:
        """gate.Mechanism: towards `rung`."""
        self._answered = answered
        self._run(self._session.asked(monotonic(), rung, generation, self.why()))

    def terminate(self) -> None:
        """The pod ends; to be called before the policy hears of it. Nobody waits for what comes of it (FZ-051)."""
        self._run(self._session.terminated(monotonic()))

    def close(self) -> None:
        """Nothing of ours is left on the loop, and nobody is told anything any more."""
        self._closed = True
        self._hang_up()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- effects

    def _run(self, effects: Effects) -> None:
        self._queue.extend(effects)
        if self._running:
            return
        self._running = True
        try:
            while self._queue and not self._closed:
                self._carry_out(self._queue.popleft())
        finally:
            self._running = False
        self._arm()

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Say):
            self._send(effect.what)
        elif isinstance(effect, Told):
            answered, self._answered = self._answered, None
            if answered is not None:
                answered(*effect)
        elif effect is DIAL:
            self._dial()
        elif effect is HANG_UP:
            self._hang_up()
        elif isinstance(effect, Found):
            self._owner.found(effect.generation, effect.rung)
        elif isinstance(effect, Woken):
            self._owner.woken(effect.why)
        elif isinstance(effect, Terms):
            self._owner.terms(effect)
        elif isinstance(effect, Up):
            self.name = effect.mechanism or self.name
            self._owner.up(self.name)
        elif isinstance(effect, Down):
            self._owner.down(effect.reason)

    def _arm(self) -> None:
        """One timer. It is moved only to fire earlier: early is harmless, and a wake moves it twice."""
        if self._closed:
            return
        due = self._session.next_deadline()
        if due is None or (self._timer is not None and self._timer_at <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._loop.call_later(max(0.0, due - monotonic()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._run(self._session.on_deadline(monotonic()))

    # -- the connection

    def _dial(self) -> None:
        self._hang_up()
        if self._token.refresh():
            self._head = None
        if not self._token.value:
            self._lost(Fault.CONNECT, "the token cannot be read")
            return
        host, port = self._address
        family = socket.AF_UNIX if not port else socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._socket = sock
        try:
            if port:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE)
            code = sock.connect_ex((host, port) if port else host)
        except OSError as error:
            code = error.errno or errno.EINVAL
        if code == 0:
            self._connected(sock)
        elif code in _IN_PROGRESS and port:
            self._loop.add_writer(sock.fileno(), self._settled, sock)
        else:
            self._lost(Fault.CONNECT, f"the freezer cannot be reached: {os.strerror(code).lower()}")

    def _settled(self, sock: socket.socket) -> None:
        """The handshake is over, one way or the other."""
        self._loop.remove_writer(sock.fileno())
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._lost(Fault.CONNECT, f"the freezer cannot be reached: {os.strerror(code).lower()}")
        else:
            self._connected(sock)

    def _connected(self, sock: socket.socket) -> None:
        self._reader = AnswerReader()
        self._loop.add_reader(sock.fileno(), self._readable, sock)
        self._run(self._session.connected(monotonic()))

    def _hang_up(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            self._loop.remove_reader(sock.fileno())
            self._loop.remove_writer(sock.fileno())
            sock.close()

    def _lost(self, fault: Fault, why: str) -> None:
        self._hang_up()
        self._run(self._session.lost(monotonic(), fault, why))

    def _readable(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(_READ)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(Fault.CLOSED, f"the connection to the freezer broke: {error.strerror}")
            return
        if not data:
            self._lost(Fault.CLOSED, "the freezer closed the connection")
            return
        reader = self._reader
        reader.feed(data)
        # An answer may end this connection, or open another one.
        while self._socket is sock:
            try:
                answer = reader.next()
            except BadAnswer as error:
                self._lost(Fault.GARBAGE, f"the freezer's answer: {error}")
                return
            if answer is None:
                return
            self._run(self._session.answered(monotonic(), answer.status, answer.body))
            if not answer.keep_alive and self._socket is sock:
                self._lost(Fault.CLOSED, "the freezer closed the connection")

    # -- what is said

    def _send(self, what: object) -> None:
        sock = self._socket
        if sock is None:
            return  # the session has been told, or is about to be
        if isinstance(what, StateRequest) and what.wanted is Wanted.IDLE and self._token.refresh():
            self._head = None  # on the way to sleep there is time to look; on the way back there is not
        if self._head is None or self._secret != self._session.secret:
            self._make_heads()
        assert self._head is not None
        get, put, post = self._head
        if isinstance(what, StateRequest):
            body = encode_request(what)
            message = b"%b%d\r\n\r\n%b" % (put, len(body), body)
        elif isinstance(what, OldAction):
            body = encode_old(what)
            message = b"%b%d\r\n\r\n%b" % (post, len(body), body)
        else:
            assert what is GET
            message = get
        try:
            sent = sock.send(message)
        except OSError as error:
            self._lost(Fault.CLOSED, f"the connection to the freezer broke: {error.strerror}")
            return
        if sent != len(message):  # a kernel buffer full of questions nobody reads
            self._lost(Fault.TIMEOUT, "the freezer does not read")

    def _make_heads(self) -> None:
        """All but the length and the body, for as long as token and secret are what they are."""
        self._secret = secret = self._session.secret
        host = f"Host: {self._address.authority}\r\n"
        token = self._token.value
        named = f"{host}Authorization: Bearer {token}\r\n" + (f"{SESSION_HEADER}: {secret}\r\n" if secret else "")
        self._head = (
            f"GET {PATH_SELF} HTTP/1.1\r\n{named}\r\n".encode(),
            f"PUT {PATH_STATE} HTTP/1.1\r\n{named}Content-Type: application/json\r\nContent-Length: ".encode(),
            f"POST / HTTP/1.1\r\n{host}{OLD_TOKEN_HEADER}: {token}\r\nContent-Length: ".encode(),
        )
