"""Plays a node's freezer: honest unless told otherwise, over real sockets, one thread per connection.

Honest means version 1 with generations, sessions and leases, and nothing in the kernel: what it "froze" is in `rung`.
`script` is asked first about every call and may return raw bytes, HANG (no answer, ever), HANG_UP, or None for honesty.
`old` makes it the daemon of old. All waiting is by `until`, on a condition that every call notifies.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

from queueproxy.freeze.annotations import DEFAULTS, PodPolicy
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import (
    PROBLEM_TYPE,
    OldAction,
    Problem,
    StateRequest,
    View,
    Wanted,
    decode_old,
    decode_request,
    encode_problem,
    encode_view,
)
from tests.support.netns import NetworkNamespace
from tests.support.rawhttp import PATIENCE, Message, Wire

HANG: Final = "hang"
HANG_UP: Final = "hang up"
EAGER: Final = DEFAULTS._replace(freeze_after_s=0.05, min_uptime_s=0.0)


class Call(NamedTuple):
    """One request as it came. `connection` counts from 1."""

    message: Message
    connection: int

    @property
    def method(self) -> str:
        return self.message.start.split(b" ")[0].decode()

    @property
    def body(self) -> bytes:
        return self.message.body

    @property
    def token(self) -> str:
        value = self.message.get("Authorization") or self.message.get("Token") or b""
        return value.removeprefix(b"Bearer ").decode()

    @property
    def wish(self) -> StateRequest:
        return decode_request(self.body)


Script = Callable[[Call], bytes | str | None]


def response(status: int, body: bytes = b"", kind: str = "application/json", *lines: str) -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


def problem(which: Problem, view: View | None = None) -> bytes:
    return response(which.status, encode_problem(which, "scripted", view), PROBLEM_TYPE)


class ScriptedFreezer:
    """Listens at once. Addresses: a port on 127.0.0.1, also in a namespace, or a Unix path."""

    def __init__(
        self,
        namespace: NetworkNamespace | None = None,
        *,
        policy: PodPolicy | None = EAGER,
        port: int = 0,
        path: str = "",
        host: str = "127.0.0.1",
    ) -> None:
        self.policy = policy
        self.lease_s = 30.0
        self.rung = Rung.RUNNING
        self.generation = 0
        self.old = False
        self.script: Script = lambda call: None
        self.calls: list[Call] = []
        self.connections = 0
        self._news = threading.Condition()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._namespace = namespace
        self._where = (host, port, path)
        self.listen()

    def __repr__(self) -> str:
        return f"<ScriptedFreezer {self.rung.name} {self.generation} calls={len(self.calls)}>"

    # -- life

    def listen(self) -> None:
        host, port, path = self._where
        if self._namespace is not None:
            with self._namespace.inside():
                listener = socket.socket(socket.AF_INET)
        else:
            family = socket.AF_UNIX if path else socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(path if path else (host, port))
        listener.listen(64)
        self._listener = listener
        if not path:
            self._where = (host, listener.getsockname()[1], "")
        thread = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        thread.start()
        self._threads.append(thread)

    @property
    def port(self) -> int:
        return self._where[1]

    def vanish(self) -> None:
        """Nobody listens, and every connection is reset, as after kill -9."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        with self._news:
            connections, self._open = self._open, set()
        for sock in connections:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.vanish()
        if self._where[2]:
            with suppress(OSError):
                os.unlink(self._where[2])
        for thread in self._threads:
            thread.join(PATIENCE)

    # -- what a test looks at

    @property
    def puts(self) -> list[StateRequest]:
        return [call.wish for call in list(self.calls) if call.method == "PUT"]

    @property
    def actions(self) -> list[OldAction]:
        return [decode_old(call.body) for call in list(self.calls) if call.method == "POST"]

    def until(self, what: Callable[[], object], within: float = PATIENCE) -> None:
        with self._news:
            assert self._news.wait_for(what, within), f"not within {within} s: {self!r} {self.calls[-5:]}"

    def view(self, **changes: object) -> View:
        view = View(self.rung, self.generation, "scripted", 10, "secret-1", self.lease_s, self.policy)
        return view._replace(**changes)  # type: ignore[arg-type]

    # -- inside

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with self._news:
                self.connections += 1
                self._open.add(sock)
                number = self.connections
                self._news.notify_all()
            thread = threading.Thread(target=self._serve, args=(sock, number), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _serve(self, sock: socket.socket, number: int) -> None:
        if sock.family == socket.AF_UNIX:
            wire = Wire.__new__(Wire)
            wire.sock, wire.held = sock, b""
        else:
            wire = Wire(sock)
        sock.settimeout(None)
        with sock, suppress(OSError, AssertionError, EOFError, ConnectionError):
            while True:
                message = wire.head()
                wire.body_of(message)
                call = Call(message, number)
                with self._news:
                    self.calls.append(call)
                answer = self.script(call)
                if answer is None:
                    answer = self._honest(call)
                with self._news:
                    self._news.notify_all()
                if answer == HANG_UP:
                    return
                if answer != HANG:
                    assert isinstance(answer, bytes)
                    sock.sendall(answer)

    def _honest(self, call: Call) -> bytes:
        if self.old:
            return self._old(call)
        if call.method == "GET":
            return response(200, encode_view(self.view()))
        wish = call.wish
        if wish.generation < self.generation:
            return problem(Problem.STALE_GENERATION, self.view())
        if wish.generation > self.generation:
            self.generation = wish.generation
            self.rung = wish.rung if wish.wanted is Wanted.IDLE else Rung.RUNNING
        return response(200, encode_view(self.view()))

    def _old(self, call: Call) -> bytes:
        if call.message.get("Token") is None:
            return response(400, b"no token\n", "text/plain")
        self.rung = Rung.FROZEN if decode_old(call.body) is OldAction.PAUSE else Rung.RUNNING
        return response(200)
