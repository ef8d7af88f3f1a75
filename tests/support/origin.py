"""Plays the app behind a proxy: a listening socket in a namespace, and a test that says every byte itself.

There is no thread. The proxy under test is another process and the kernel buffers both sides, so a test sends as the
client, asks the origin for `request()` and answers on the wire it came by. Which connection the proxy chose, fresh or
pooled, is for the test to see, not to arrange.
"""

from __future__ import annotations

import select
import socket
from dataclasses import dataclass

from tests.support.netns import NetworkNamespace
from tests.support.rawhttp import PATIENCE, Message, Wire


@dataclass(slots=True)
class Asked:
    """A request and the wire to answer it on. `number`: of the connection, counted from 1 since `fresh()`."""

    wire: Wire
    message: Message
    number: int

    @property
    def head(self) -> bytes:
        return self.message.head

    @property
    def target(self) -> bytes:
        return self.message.target


class Origin:
    """`accepted` counts connections since `fresh()`."""

    def __init__(self, namespace: NetworkNamespace, port: int) -> None:
        self._namespace = namespace
        self.port = port
        self.accepted = 0
        self._wires: dict[Wire, int] = {}
        self._listener: socket.socket | None = None
        self.listen()

    def __repr__(self) -> str:
        return f"<Origin {self.port} {len(self._wires)} open>"

    def listen(self) -> None:
        with self._namespace.inside():
            listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(4096)
        self._listener = listener

    def refuse(self) -> None:
        """Nobody listens any more; open connections stay."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def fresh(self) -> None:
        """Ends every connection and waits until the proxy has let go of each: its pool is empty then."""
        if self._listener is None:
            self.listen()
        while self._ready(0, [self._listener]):
            self._accept()
        for wire in self._wires:
            if wire.fileno() >= 0:
                try:
                    wire.half_close()
                    wire.gone()
                except OSError:
                    pass
                wire.close()
        self._wires.clear()
        self.accepted = 0

    def close(self) -> None:
        self.refuse()
        for wire in self._wires:
            wire.close()

    def accept(self) -> Wire:
        """The next new connection."""
        assert self._listener is not None
        assert self._ready(PATIENCE, [self._listener]), "the proxy did not connect"
        return self._accept()

    def began(self) -> Asked:
        """The next request head, on whichever connection; its body is left on the wire."""
        wire = self._speaker()
        return Asked(wire, wire.head(), self._wires[wire])

    def request(self) -> Asked:
        """The next request, whole."""
        asked = self.began()
        asked.wire.body_of(asked.message)
        return asked

    def requests(self, count: int) -> list[Asked]:
        return [self.request() for _ in range(count)]

    @property
    def idle(self) -> bool:
        """At this instant nothing has been said and nobody has connected."""
        return self._listener is not None and not self._ready(0, [self._listener, *self._open()])

    # -- inside

    def _accept(self) -> Wire:
        assert self._listener is not None
        sock, _ = self._listener.accept()
        self.accepted += 1
        wire = Wire(sock)
        self._wires[wire] = self.accepted
        return wire

    def _open(self) -> list[Wire]:
        return [wire for wire in self._wires if wire.fileno() >= 0]

    def _speaker(self) -> Wire:
        """A connection with something to say; those that end meanwhile are let go."""
        while True:
            for wire in self._open():
                if wire.held:
                    return wire
            watched = self._open()
            ready = self._ready(PATIENCE, [self._listener, *watched] if self._listener else watched)
            assert ready, "no request came"
            for wire in watched:
                if wire in ready:
                    try:
                        alive = wire.more()
                    except ConnectionResetError:
                        alive = False
                    if not alive:
                        wire.close()
            if self._listener in ready:
                self._accept()

    @staticmethod
    def _ready(within: float, watched: list[object]) -> list[object]:
        poll = select.poll()
        by_fd = {w.fileno(): w for w in watched}  # type: ignore[attr-defined]
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        return [by_fd[fd] for fd, _ in poll.poll(within * 1000)]
